from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_networks import NORMS, folded, layers_before_norms, lived_in
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.discriminators import ARCHITECTURES, build

COUNTS = {("ape-gan", 3, 32): 373_889, ("ape-gan", 1, 28): 371_457, ("nrp", 3, 32): 899_465}


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", COUNTS)
def test_parameter_counts_are_the_published_ones(shape: tuple[str, int, int]) -> None:
    name, channels, size = shape
    with torch.device("meta"):
        net = build(name, channels=channels, size=size)
    assert sum(parameter.numel() for parameter in net.parameters()) == COUNTS[shape]


def test_every_architecture_is_counted() -> None:
    assert {name for name, *_ in COUNTS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("channels", "size"), [(1, 1), (1, 8), (3, 14), (3, 15), (1, 16), (1, 28), (3, 32), (3, 47)])
def test_every_size_gives_one_logit_and_a_full_gradient(name: str, channels: int, size: int) -> None:
    net = build(name, channels=channels, size=size).eval()
    x = images(3, channels, size, size).requires_grad_()
    logits = net(x)
    assert logits.shape == (3,)
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert gradient.isfinite().all()
    # Each cell of the last map of unpadded convolutions sees 15 pixels, 8 after those of the one before it.
    seen = (size - 15) // 8 * 8 + 15 if name == "ape-gan" and size > 15 else size
    assert (gradient[..., :seen, :seen] != 0).all()
    assert (gradient[..., seen:, :] == 0).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_a_batch_do_not_mix_in_evaluation(name: str) -> None:
    net = build(name, channels=3, size=16).eval()
    x = images(3, 3, 16, 16)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_learns_to_tell_clean_images_from_smooth_ones(name: str) -> None:
    net = build(name, channels=1, size=8)
    clean = images(16, 1, 8, 8)
    smooth = F.avg_pool2d(clean, 3, 1, 1)
    y = torch.cat((torch.ones(16), torch.zeros(16)))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    for _ in range(10):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(net(torch.cat((clean, smooth))), y).backward()
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
        optimizer.step()
    logits = net(torch.cat((clean, smooth)))
    assert ((logits > 0) == y.bool()).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_comes_back_from_its_settings_and_its_file(name: str, tmp_path: Path) -> None:
    x = images(4, 1, 11, 11)
    net = lived_in(build(name, channels=1, size=11), x)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    assert net.settings == {"channels": 1, "size": 11}
    rebuilt = build(name, **json.loads(json.dumps(net.settings))).eval()
    rebuilt.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(rebuilt(x), net(x))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batchnorm_folds_into_the_layer_before_it(name: str) -> None:
    x = images(4, 1, 28, 28)
    net = lived_in(build(name, channels=1, size=28), x)
    layers = layers_before_norms(net)
    assert len(layers) == sum(isinstance(module, NORMS) for module in net.modules()) > 0
    assert None not in layers.values()
    torch.testing.assert_close(folded(net)(x), net(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_small_images_are_continued_by_their_last_row_and_column(name: str) -> None:
    small, large = build(name, channels=1, size=8).eval(), build(name, channels=1, size=16).eval()
    large.load_state_dict(small.state_dict())
    x = images(2, 1, 8, 8)
    continued = torch.cat((x, x[..., -1:].expand(2, 1, 8, 8)), 3)
    continued = torch.cat((continued, continued[..., -1:, :].expand(2, 1, 8, 16)), 2)
    torch.testing.assert_close(small(x), large(continued))


def test_ape_gan_discriminator_scales_and_has_no_sigmoid() -> None:
    net = build("ape-gan", channels=1, size=15).eval()
    x = images(2, 1, 15, 15)
    seen: list[Tensor] = []
    net.body.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    nn.init.zeros_(net.linear.bias)
    logits = net(x)
    torch.testing.assert_close(seen[0], 2 * x - 1)
    with torch.no_grad():
        net.linear.weight.mul_(-100)
    torch.testing.assert_close(net(x), -100 * logits)


def test_discriminator_slopes_are_the_published_ones() -> None:
    slopes = {
        name: {
            layer.negative_slope for layer in build(name, channels=1, size=8).modules() if type(layer) is nn.LeakyReLU
        }
        for name in ARCHITECTURES
    }
    assert slopes == {"ape-gan": {0.01}, "nrp": {0.2}}
    net, x = build("nrp", channels=1, size=16).eval(), images(2, 1, 16, 16)
    inner = net.body(x).flatten(1) @ net.linear1.weight.T + net.linear1.bias
    logits = inner.where(inner > 0, 0.2 * inner) @ net.linear2.weight.T + net.linear2.bias
    torch.testing.assert_close(net(x), logits.squeeze(1))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(2, 3, 28, 28), (2, 1, 28, 27), (2, 1, 32, 32)])
def test_images_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"this discriminator was built for \(B, 1, 28, 28\): build it with"):
        build(name, channels=1, size=28)(images(*shape))


def test_an_unknown_discriminator_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no discriminator architecture called 'apegan': did you mean 'ape-gan'"):
        build("apegan", channels=3, size=32)


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"size": 0}, {"size": 8.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    ((what, number),) = wrong.items()
    with pytest.raises(InputError, match=f"A discriminator's {what} is {number}"):
        build("nrp", **{"channels": 1, "size": 8, **wrong})
