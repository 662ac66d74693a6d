from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers.folded_networks import lived_in
from helpers.narrow_classifiers import narrow
from torch import Tensor, nn

from forefend.models.classifiers import ARCHITECTURES, build
from forefend.models.classifiers.madry_cifar import standardize


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def multiply(layer: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(factor)


@pytest.mark.parametrize("name", ["densenet121", "madry-cifar", "mobilenetv2", "squeezenet", "vgg16"])
@pytest.mark.parametrize("size", [8, 28, 32])
def test_digits_clothes_and_photographs_fit(name: str, size: int) -> None:
    assert narrow(name, size=size).eval()(images(2, 3, size, size)).shape == (2, 4)


def test_standardizing_one_image_by_hand() -> None:
    x = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]], [[[0.25, 0.25], [0.25, 0.25]]], [[[0.0, 0.0], [0.0, 0.4]]]])
    by_hand = torch.tensor([[-1.0, 1, 1, -1], [0, 0, 0, 0], [-0.2, -0.2, -0.2, 0.6]])  # the third: deviation < 1 / 2
    torch.testing.assert_close(standardize(x).flatten(1), by_hand)


def test_standardizing_keeps_images_apart_and_gradients_finite() -> None:
    x = torch.full((2, 3, 4, 4), 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad((standardize(x) * images(2, 3, 4, 4)).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()
    y = images(2, 3, 8, 8)
    assert torch.equal(standardize(y)[:1], standardize(y[:1]))


def test_madry_cifar_is_invariant_to_brightness_and_contrast() -> None:
    net = lived_in(narrow("madry-cifar"), images(4, 3, 8, 8))
    x = images(2, 3, 8, 8)
    torch.testing.assert_close(net(0.5 * x + 0.25), net(x), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(net(1 - x), net(x), rtol=0.01)


def test_madry_unit_with_zero_weights_is_its_shortcut() -> None:
    net = build("madry-cifar", channels=3, classes=10, size=8, widths=[2, 2, 6], units=1).eval()
    (first,), (unit,) = net.stages
    for silent in (first, unit):
        nn.init.zeros_(silent.conv2.weight)
    x = torch.tensor([[[[1.0, 2.0], [3.0, -2.0]], [[0.0, 0.0], [0.0, 4.0]]]])
    expected = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    assert unit(x).flatten().tolist() == expected
    scale = 1.00001**-0.5  # BatchNorm's epsilon; the very first unit's shortcut starts after its LeakyReLU
    torch.testing.assert_close(first(x), F.leaky_relu(x * scale, 0.1))


def test_madrys_mnist_network_starts_as_its_authors_say() -> None:
    net = build("madry-mnist", channels=1, classes=10, size=28)
    for layer in (net.conv1, net.conv2, net.fc1, net.fc2):
        assert (layer.bias == torch.tensor(0.1)).all()
        assert layer.weight.abs().max() <= 0.2
    assert net.fc1.weight.std().item() == pytest.approx(0.1 * 0.8796, rel=0.01)  # of a normal cut off at two deviations


def test_a_mobile_block_adds_its_input_only_at_stride_1() -> None:
    net = lived_in(build("mobilenetv2", channels=3, classes=4, size=8), images(4, 3, 8, 8))
    x = images(1, 24, 4, 4)
    halving, same = net.stages[2][0], net.stages[1][1]
    for block in (halving, same):
        nn.init.zeros_(block.bn3.weight)
        nn.init.zeros_(block.bn3.bias)
    assert torch.equal(same(x), x)
    assert torch.equal(halving(x), torch.zeros(1, 32, 2, 2))
    shortcuts = [key for key, module in net.named_modules() if key.endswith("shortcut") and len(module)]
    assert shortcuts == ["stages.0.0.shortcut", "stages.1.0.shortcut", "stages.4.0.shortcut", "stages.6.0.shortcut"]


def test_squeezenet_bypasses_three_of_its_modules() -> None:
    net = lived_in(build("squeezenet", channels=3, classes=4, size=8), images(4, 3, 8, 8))
    x = images(2, 3, 8, 8)
    logits = net(x)
    assert (logits != 0).any()
    for name, bypassed in [(f"fire{i}", i in (3, 5, 7)) for i in range(2, 10)]:
        with torch.no_grad():
            hook = net.get_submodule(name).register_forward_hook(lambda *io: torch.zeros_like(io[2]))
            silent = torch.allclose(net(x)[0], net(x)[1], atol=1e-6)
            hook.remove()
        assert silent is not bypassed


def test_squeezenet_logits_are_the_mean_of_conv10() -> None:
    net = lived_in(build("squeezenet", channels=1, classes=3, size=32), images(4, 1, 32, 32))
    x = images(2, 1, 32, 32)
    maps: list[Tensor] = []
    net.conv10.register_forward_hook(lambda *io: maps.append(io[2]))
    logits = net(x)
    assert maps[0].shape == (2, 3, 4, 4)
    torch.testing.assert_close(logits, maps[0].sum((2, 3)) / 16)


def test_a_dense_layer_puts_what_is_new_before_what_came_in() -> None:
    net = build("densenet121", channels=1, classes=3, size=8, growth=2, blocks=[2, 1]).eval()
    x = images(1, 4, 3, 3)
    layer = net.stages[0][0]
    out = layer(x)
    assert out.shape == (1, 6, 3, 3)
    assert torch.equal(out[:, 2:], x)
    multiply(layer.conv2, 2)
    torch.testing.assert_close(layer(x)[:, :2], 2 * out[:, :2])
    assert net.transitions[0].conv.weight.shape == (4, 8, 1, 1)


def test_vgg_depth_counts_convolutions_and_linear_layers() -> None:
    with torch.device("meta"):
        nets = {depth: build(f"vgg{depth}", channels=3, classes=10, size=32) for depth in (16, 19)}
    for depth, net in nets.items():
        assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == depth - 3  # two linear layers fewer


def test_the_plain_network_b_by_hand() -> None:
    net, x = build("aaa-b", channels=1, classes=10, size=8, widths=[3], hidden=6), images(2, 1, 8, 8)
    convolution, hidden, last = net.stages[0][0], net.head[0], net.head[-1]
    features = F.max_pool2d(F.conv2d(x, convolution.weight, convolution.bias, padding=2).clamp(min=0), 2).flatten(1)
    inner = (features @ hidden.weight.T + hidden.bias).clamp(min=0)
    torch.testing.assert_close(net(x), inner @ last.weight.T + last.bias)


def test_the_plain_networks_of_aaa_are_what_its_words_say() -> None:
    layers = {
        name: [type(module).__name__ for module in build(name, channels=1, classes=10, size=28).modules()]
        for name in ("aaa-b", "aaa-c", "aaa-f")
    }
    counts = {name: (kinds.count("Conv2d"), kinds.count("Linear")) for name, kinds in layers.items()}
    assert counts == {"aaa-b": (1, 2), "aaa-c": (0, 3), "aaa-f": (4, 1)}
    assert ARCHITECTURES["aaa-c"] is ARCHITECTURES["mlp"]
