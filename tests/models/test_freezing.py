from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from forefend.models.classifiers import Normalized, build
from forefend.models.fingerprint import architecture_digest, fingerprint
from forefend.models.freezing import channels_last, channels_last_copy, device_of, eval_and_no_grad, frozen
from forefend.models.optimized_copy import optimized_copy
from forefend.recipes.base import Networks


def state(network: nn.Module) -> tuple[list[bool], list[bool]]:
    """Every mode and every gradient flag."""
    return [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]


def mixed(network: nn.Module) -> nn.Module:
    """The same network with modes and flags that no single call could restore."""
    network.train()
    for module in list(network.modules())[1::2]:
        module.training = False
    for parameter in list(network.parameters())[::2]:
        parameter.requires_grad = False
    return network


def test_frozen_shares_every_tensor_and_follows_the_original(net: nn.Module, x: Tensor) -> None:
    view = frozen(net)
    theirs = [t.data_ptr() for t in (*net.parameters(), *net.buffers())]
    assert [t.data_ptr() for t in (*view.parameters(), *view.buffers())] == theirs
    before = view(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.5)
    assert not torch.equal(view(x), before)
    assert torch.equal(view(x), net.eval()(x))


def test_frozen_follows_an_optimizer_and_batchnorm_s_statistics(net: nn.Module, x: Tensor, y: Tensor) -> None:
    view = frozen(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    assert torch.equal(view(x), net.eval()(x))


def test_channels_last_copy_leaves_the_original_layout(net: nn.Module, x: Tensor) -> None:
    view = channels_last_copy(net)
    assert view.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    assert not net.get_parameter("0.weight").is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(view(x), net.eval()(x))


@pytest.mark.parametrize("shape", [(16, 1, 3, 3), (1, 3, 1, 1), (16, 3, 1, 1), (16, 3, 3, 3)])
def test_the_layout_is_torch_s_own_where_several_would_do(shape: tuple[int, ...]) -> None:
    """Convolutions round differently by layout, so resuming requires the same one."""
    channels, width, *sides = shape
    ours, theirs = (nn.Conv2d(width, channels, tuple(sides)) for _ in range(2))
    channels_last(ours)
    theirs.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert ours.weight.stride() == theirs.weight.stride()


class Volumes(nn.Module):
    """An image classifier with a convolution over three dimensions, color being one."""

    def __init__(self) -> None:
        super().__init__()
        self.plane, self.volume = nn.Conv2d(3, 4, 3), nn.Conv3d(1, 5, (4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.volume(self.plane(x)[:, None]).mean((2, 3, 4))
        return logits


def test_five_dimensions_have_no_such_layout_and_stay() -> None:
    view, x = channels_last_copy(Volumes()), torch.rand(2, 3, 6, 6)
    assert view.plane.weight.is_contiguous(memory_format=torch.channels_last)
    assert view.volume.weight.is_contiguous()
    assert view(x).shape == (2, 5)
    assert optimized_copy(Volumes(), x)(x).shape == (2, 5)
    Networks(classifier=Volumes()).to(torch.device("cpu"))


def test_channels_last_copy_moves_to_the_other_device() -> None:
    both = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3).to("meta"))
    assert {tensor.device.type for tensor in channels_last_copy(both).parameters()} == {"meta"}
    assert device_of(both) == torch.device("cpu")  # where it was
    assert device_of(channels_last_copy(both[0])) == torch.device("cpu")


def test_frozen_leaves_the_original_unchanged(net: nn.Module, x: Tensor) -> None:
    before, tensors = state(mixed(net)), copy.deepcopy(net.state_dict())
    view = frozen(net)
    view(x)
    assert state(net) == before
    assert all(torch.equal(a, b) for a, b in zip(tensors.values(), net.state_dict().values(), strict=True))
    view.train()
    assert state(net) == before


def test_frozen_is_in_eval_mode_without_gradients(net: nn.Module, x: Tensor) -> None:
    view = frozen(net.train())
    modes, flags = state(view)
    assert not any(modes)
    assert not any(flags)
    assert torch.equal(view(x), view(x))
    assert not torch.equal(net(x), net(x))  # dropout


def test_frozen_batchnorm_does_not_move(net: nn.Module, x: Tensor) -> None:
    statistics = {name: buffer.clone() for name, buffer in net.named_buffers()}
    frozen(net)(x)
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in net.named_buffers())


def test_frozen_passes_gradients_to_the_image_only(net: nn.Module, x: Tensor) -> None:
    view = frozen(net)
    x.requires_grad_()
    view(x).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any()
    assert all(p.grad is None for p in (*view.parameters(), *net.parameters()))


def test_frozen_keeps_wrapped_networks_and_tied_weights(net: nn.Module, x: Tensor) -> None:
    wrapped = nn.Sequential(Normalized(net, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)), nn.Identity())
    assert torch.equal(frozen(wrapped)(x), wrapped.eval()(x))
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    view = frozen(tied)
    assert view[1].weight is view[0].weight
    assert torch.equal(frozen(frozen(wrapped))(x), wrapped(x))


def test_frozen_keeps_a_parametrised_layer_s_function() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    batch = torch.rand(4, 3)
    view = frozen(layer)
    with torch.no_grad():
        layer.parametrizations.weight.original0.mul_(2)
    assert torch.equal(view(batch), layer(batch))


def test_eval_and_no_grad_restores_modes_and_flags(net: nn.Module) -> None:
    before = state(mixed(net))
    with eval_and_no_grad(net):
        modes, flags = state(net)
        assert not any(modes)
        assert not any(flags)
    assert state(net) == before
    assert len(set(before[0])) == len(set(before[1])) == 2


def test_eval_and_no_grad_restores_after_an_exception(net: nn.Module) -> None:
    before = state(mixed(net))
    with pytest.raises(KeyError), eval_and_no_grad(net):
        raise KeyError
    assert state(net) == before


def test_nested_eval_and_no_grad_restores(net: nn.Module) -> None:
    before = state(mixed(net))
    with eval_and_no_grad(net):
        with eval_and_no_grad(net):
            pass
        assert not any(state(net)[0] + state(net)[1])
    assert state(net) == before


def test_eval_and_no_grad_accepts_any_callable(net: nn.Module) -> None:
    with eval_and_no_grad(lambda batch: net(batch)):
        assert net.training


def with_bit_flipped(network: nn.Module, name: str) -> nn.Module:
    other = copy.deepcopy(network)
    flat = other.state_dict()[name].view(-1).view(torch.uint8)
    flat[0] ^= 1
    return other


def test_equal_tensors_have_equal_fingerprints(net: nn.Module) -> None:
    print_ = fingerprint(net)
    assert len(print_) == 16
    assert int(print_, 16) >= 0
    assert fingerprint(copy.deepcopy(net).eval().requires_grad_(False)) == print_
    assert fingerprint(frozen(net)) == print_
    assert fingerprint(copy.deepcopy(net).to(memory_format=torch.channels_last)) == print_


@pytest.mark.parametrize("name", ["0.weight", "3.2.bias", "1.running_mean", "1.num_batches_tracked"])
def test_one_bit_changes_the_fingerprint(net: nn.Module, name: str) -> None:
    assert fingerprint(with_bit_flipped(net, name)) != fingerprint(net)


def test_names_types_shapes_and_unsaved_buffers_are_part_of_it() -> None:
    def holding(name: str, tensor: Tensor, saved: bool = True) -> str:
        network = nn.Module()
        network.register_buffer(name, tensor, persistent=saved)
        return fingerprint(network)

    zeros = torch.zeros(2, 3)
    prints = [
        holding("mean", zeros),
        holding("std", zeros),
        holding("mean", zeros.int()),
        holding("mean", zeros.view(3, 2)),
        holding("mean", zeros.view(6)),
        holding("mean", -zeros),
        fingerprint(nn.Module()),
    ]
    assert len(set(prints)) == len(prints)
    assert holding("mean", zeros, saved=False) == prints[0]
    assert holding("mean", zeros + 1, saved=False) != prints[0]


def test_a_fingerprint_names_its_tensors_in_any_order() -> None:
    one, other = nn.Module(), nn.Module()
    for network, names in ((one, "ab"), (other, "ba")):
        for name in names:
            network.register_parameter(name, nn.Parameter(torch.full((2,), float(ord(name)))))
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    "tensor", [torch.tensor(1.5), torch.tensor([]), torch.tensor([True]), torch.ones(2).bfloat16()]
)
def test_every_kind_of_tensor_has_a_fingerprint(tensor: Tensor) -> None:
    network = nn.Module()
    network.register_buffer("it", tensor)
    assert fingerprint(network) != fingerprint(nn.Module())


def test_fingerprint_is_stable_across_processes(python: Callable[..., str]) -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -1.0]]))
        layer.bias.fill_(2.0)
    program = (
        "import torch; from torch import nn; from forefend.models.fingerprint import fingerprint\n"
        "layer = nn.Linear(2, 1)\n"
        "layer.weight.data = torch.tensor([[0.5, -1.0]]); layer.bias.data = torch.tensor([2.0])\n"
        "print(fingerprint(layer))"
    )
    by_hand = b"bias|torch.float32|(1,)|" + struct.pack("<f", 2) + b"weight|torch.float32|(1, 2)|"
    by_hand += struct.pack("<2f", 0.5, -1)
    assert fingerprint(layer) == python(program) == hashlib.sha256(by_hand).hexdigest()[:16]


class Padded(nn.Conv2d):
    """A class of another package than forefend."""


def test_architecture_digest_ignores_where_our_classes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before, foreign = architecture_digest(Normalized(nn.Identity(), 0, 1)), architecture_digest(Padded(1, 1, 1))
    monkeypatch.setattr(Normalized, "__module__", "forefend.elsewhere")
    monkeypatch.setattr(Padded, "__module__", "elsewhere")
    assert architecture_digest(Normalized(nn.Identity(), 0, 1)) == before
    assert architecture_digest(Padded(1, 1, 1)) != foreign


def test_architecture_digest_is_the_same_in_every_process(python: Callable[..., str]) -> None:
    program = (
        "from forefend.models.fingerprint import architecture_digest; from forefend.models.classifiers import build; "
        "print(architecture_digest(build('tinyresnet', channels=1, classes=10, size=8)))"
    )
    assert architecture_digest(build("tinyresnet", channels=1, classes=10, size=8)) == python(program)
