from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from helpers.folded_networks import lived_in
from helpers.narrow_classifiers import narrow
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers import ARCHITECTURES, FeatureLayers, Normalized, build, feature_layers_of
from forefend.models.freezing import frozen
from forefend.models.guide import Guide

SIZE = 16

# architecture -> what is read in the paper's own form at 3x32x32: channels and side of each stage, of the last
# features, and of the third stage's last convolution.
SHAPES = {
    "densenet121": ([(256, 32), (512, 16), (1024, 8), (1024, 4)], (1024, 4), (32, 8)),
    "densenet121-narrow": ([(96, 32), (192, 16), (384, 8), (384, 4)], (384, 4), (12, 8)),
    "madry-cifar": ([(16, 32), (32, 16), (64, 8)], (64, 8), (64, 8)),
    "madry-cifar-wide": ([(160, 32), (320, 16), (640, 8)], (640, 8), (640, 8)),
    "mobilenetv2": ([(24, 32), (32, 16), (96, 8), (320, 4)], (1280, 4), (96, 8)),
    "resnet18": ([(64, 32), (128, 16), (256, 8), (512, 4)], (512, 4), (256, 8)),
    "resnet34": ([(64, 32), (128, 16), (256, 8), (512, 4)], (512, 4), (256, 8)),
    "resnet50": ([(256, 32), (512, 16), (1024, 8), (2048, 4)], (2048, 4), (1024, 8)),
    "resnet56": ([(16, 32), (32, 16), (64, 8)], (64, 8), (64, 8)),
    "squeezenet": ([(96, 32), (256, 16), (512, 8), (512, 4)], (512, 4), (256, 8)),
    "tinyresnet": ([(8, 32), (16, 16), (32, 8)], (32, 8), (32, 8)),
    "vgg16": ([(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)], (512, 2), (256, 8)),
    "vgg19": ([(64, 32), (128, 16), (256, 8), (512, 4), (512, 2)], (512, 2), (256, 8)),
    "aaa-f": ([(32, 32), (64, 16)], (64, 16), (64, 16)),
}


def images(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def names(taps: FeatureLayers) -> list[str]:
    return [*taps.stages, taps.features, taps.third]


@contextmanager
def replaced(net: nn.Module, tap: str, output: Tensor) -> Iterator[None]:
    hook = net.get_submodule(tap).register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        hook.remove()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_guide_reads_layers_with_and_without_prefix(name: str) -> None:
    net = narrow(name, size=SIZE)
    wrapped = Normalized(net, 0.5, 0.25)
    x, inside, outside = images(), feature_layers_of(net), feature_layers_of(wrapped)
    assert names(outside) == [f"network.{tap}" for tap in names(inside)]
    logits, read = Guide(wrapped).read(x, names(inside))
    _, read_outside = Guide(wrapped).read(x, names(outside))
    assert torch.equal(logits, wrapped.eval()(x))
    for tap in names(inside):
        assert read[tap].ndim == (2 if name in ("mlp", "aaa-c") else 4)
        assert len(read[tap]) == len(x)
        assert torch.equal(read[tap], read_outside[f"network.{tap}"])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_feature_layers_run_once_and_in_order(name: str) -> None:
    net = narrow(name, size=SIZE).eval()
    ran: list[str] = []
    for tap in {*names(net.feature_layers)}:
        net.get_submodule(tap).register_forward_hook(lambda *_, tap=tap: ran.append(tap))
    net(images())
    assert len(ran) == len(set(ran)) == len({*names(net.feature_layers)})
    assert [tap for tap in ran if tap in net.feature_layers.stages] == list(net.feature_layers.stages)
    assert ran.index(net.feature_layers.features) >= ran.index(net.feature_layers.stages[-1])
    assert ran.index(net.feature_layers.third) <= ran.index(
        net.feature_layers.stages[min(3, len(net.feature_layers.stages)) - 1]
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_depend_on_the_image_through_every_stage(name: str) -> None:
    x = images(4)
    net = lived_in(narrow(name, size=SIZE), x)
    _, read = Guide(net).read(x[:2], names(net.feature_layers))
    logits = net(x[:2])
    assert not torch.allclose(net(x[2:]), logits, rtol=0.01)
    for tap in (*net.feature_layers.stages, net.feature_layers.features):
        with replaced(net, tap, read[tap]):
            torch.testing.assert_close(net(x[2:]), logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_third_layer_is_in_the_third_or_last_stage(name: str) -> None:
    net = narrow(name, size=SIZE)
    layer = net.get_submodule(net.feature_layers.third)
    assert isinstance(layer, nn.Linear if name in ("mlp", "aaa-c") else nn.Conv2d)
    convolutions = [key for key, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    stage = net.feature_layers.stages[min(3, len(net.feature_layers.stages)) - 1]
    main = [key for key in convolutions if key.startswith(f"{stage}.") and "shortcut" not in key]
    if main:
        assert net.feature_layers.third == main[-1]
    else:
        assert net.feature_layers.third[-1] == stage[-1]  # the tapped ReLU is named after its convolution


@pytest.mark.parametrize("name", SHAPES)
def test_feature_layers_have_the_published_shapes(name: str) -> None:
    stages, features, third = SHAPES[name]
    with torch.device("meta"):
        net = build(name, channels=3, classes=10, size=32).eval()
        _, read = Guide(net).read(torch.empty(2, 3, 32, 32), names(net.feature_layers))
    assert [tuple(read[tap].shape[1:3]) for tap in net.feature_layers.stages] == stages
    assert tuple(read[net.feature_layers.features].shape[1:3]) == features
    assert tuple(read[net.feature_layers.third].shape[1:3]) == third


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_features_are_not_modified_by_later_layers(name: str) -> None:
    net = narrow(name, size=SIZE).eval()
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    for tap in names(net.feature_layers):
        net.get_submodule(tap).register_forward_hook(lambda *io, tap=tap: kept.update({tap: (io[2], io[2].clone())}))
    net(images())
    assert all(torch.equal(output, then) for output, then in kept.values())


def test_feature_layers_survive_freezing_and_wrapping() -> None:
    net = narrow("resnet18")
    assert feature_layers_of(frozen(net)) == net.feature_layers
    assert feature_layers_of(Normalized(Normalized(net, 0, 1), 0, 1)).features == "network.network.stages.3"


def test_single_stage_has_feature_layers() -> None:
    net = build("tinyresnet", channels=1, classes=3, size=8, widths=[8], blocks=[2])
    assert net.feature_layers == FeatureLayers(("stages.0",), "stages.0", "stages.0.1.conv2")


@pytest.mark.parametrize("wrapped", [False, True])
def test_classifier_without_feature_layers_raises(wrapped: bool) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    classifier = Normalized(net, 0, 1) if wrapped else net
    with pytest.raises(InputError, match=r"Sequential .*classifier\.feature_layers = "):
        feature_layers_of(classifier)
    net.feature_layers = FeatureLayers(("0",), "0", "0")
    assert feature_layers_of(classifier).features == ("network.0" if wrapped else "0")
