from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_networks import NORMS, folded, layers_before_norms, lived_in
from helpers.narrow_classifiers import BIG, narrow
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from forefend.models.classifiers import ARCHITECTURES, build

# The BatchNorms that come before their convolution, after a sum or a joining of features.
UNFOLDABLE = {"densenet": {"bn", "bn1"}, "madry-cifar": {"bn", "bn1"}}


def batch(channels: int = 3, size: int = 8) -> tuple[Tensor, Tensor]:
    """Noise of four classes, each with a row of its own that is bright."""
    y = torch.arange(8) % 4
    x = 0.4 * torch.rand(8, channels, size, size, generator=torch.Generator().manual_seed(0))
    x[torch.arange(8), :, 2 * y] += 0.6
    return x, y


def size_of(name: str) -> int:
    return {"marabou": 10, "smallcnn": 16}.get(name, 8)


def steps(net: nn.Module, x: Tensor, y: Tensor, count: int, lr: float) -> tuple[float, float]:
    """Adam on one batch: the loss before and after, in training mode."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    losses = []
    for _ in range(count + 1):
        loss = F.cross_entropy(net.train()(x), y)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        for parameter in net.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
        optimizer.step()
    return losses[0], losses[-1]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_few_steps_move_every_parameter_and_lower_the_loss(name: str) -> None:
    net, (x, y) = narrow(name, size=size_of(name)), batch(size=size_of(name))
    before = [parameter.clone() for parameter in net.parameters()]
    first, last = steps(net, x, y, 15, lr=2e-3)
    assert last < 0.9 * first
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG)
def test_a_few_steps_of_the_whole_network_lower_the_loss(name: str) -> None:
    x, y = batch(size=32)
    first, last = steps(build(name, channels=3, classes=4, size=32), x, y, 4, lr=1e-4)
    assert last < 0.9 * first


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_trained_network_is_rebuilt_from_settings_and_file(name: str, tmp_path: Path) -> None:
    size = size_of(name)
    x, _ = batch(size=size)
    net = lived_in(narrow(name, size=size), x)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    rebuilt = build(name, **json.loads(json.dumps(net.settings)))
    rebuilt.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(rebuilt.eval()(x), net(x))
    assert rebuilt.feature_layers == net.feature_layers


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batchnorm_folds_into_the_layer_before_it(name: str) -> None:
    size = size_of(name)
    x, _ = batch(size=size)
    net = lived_in(narrow(name, size=size), x)
    layers = layers_before_norms(net)
    assert len(layers) == sum(isinstance(module, NORMS) for module in net.modules())
    left = next((norms for start, norms in UNFOLDABLE.items() if name.startswith(start)), set())
    assert {norm.rpartition(".")[2] for norm, layer in layers.items() if layer is None} == left
    light = folded(net)
    assert sum(isinstance(module, NORMS) for module in light.modules()) == list(layers.values()).count(None)
    torch.testing.assert_close(light(x), net(x), rtol=1e-3, atol=1e-4)
