from __future__ import annotations

import json

import pytest
import torch
from helpers.narrow_classifiers import narrow
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers import ARCHITECTURES, build

# (architecture, channels, classes, size) -> parameters, by hand or as published.
COUNTS = {
    ("aaa-b", 1, 10, 28): 832 + 802_944 + 1_290,
    ("aaa-c", 1, 10, 28): 199_210,
    ("aaa-f", 3, 10, 32): 896 + 9_248 + 18_496 + 36_928 + 40_970,
    ("cnn", 1, 10, 28): 20_538,
    ("densenet121", 3, 10, 32): 6_956_298,
    ("densenet121-narrow", 3, 10, 32): 1_000_618,
    ("densenet121-narrow", 3, 100, 32): 1_035_268,
    ("fastat", 1, 10, 28): 166_406,
    ("lenet5", 1, 10, 28): 648_226,
    ("madry-cifar", 3, 10, 32): 464_154,
    ("madry-cifar-wide", 3, 10, 32): 45_901_914,
    ("madry-mnist", 1, 10, 28): 3_274_634,
    ("marabou", 3, 10, 32): 338_346,
    ("mlp", 1, 10, 28): 199_210,
    ("mobilenetv2", 3, 10, 32): 2_296_922,
    ("mobilenetv2", 3, 100, 32): 2_412_212,
    ("resnet4b", 3, 10, 32): 123_734,
    ("resnet18", 3, 10, 32): 11_173_962,
    ("resnet18", 3, 100, 32): 11_220_132,
    ("resnet20", 3, 10, 32): 269_722,
    ("resnet32", 3, 10, 32): 464_154,
    ("resnet34", 3, 10, 32): 21_282_122,
    ("resnet34", 3, 100, 32): 21_328_292,
    ("resnet44", 3, 10, 32): 658_586,
    ("resnet50", 3, 10, 32): 23_520_842,
    ("resnet50", 3, 100, 32): 23_705_252,
    ("resnet56", 3, 10, 32): 853_018,
    ("resnet56", 3, 100, 32): 858_868,
    ("smallcnn", 1, 10, 28): 312_202,
    ("squeezenet", 3, 10, 32): 734_986,
    ("squeezenet", 3, 100, 32): 781_156,
    ("tinyresnet", 1, 10, 8): 19_074,
    ("vgg16", 3, 10, 32): 14_728_266,
    ("vgg19", 3, 10, 32): 20_040_522,
    ("zheng", 1, 10, 28): 3_304_426 + 2_048,
}
UNSIZED = ["densenet", "madry-cifar", "mobilenet", "resnet1", "resnet2", "resnet3", "resnet44", "resnet5", "squeezenet"]
UNSIZED += ["tinyresnet", "vgg"]
SIZED = [name for name in ARCHITECTURES if not name.startswith(tuple(UNSIZED))]


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", COUNTS)
def test_parameter_counts_are_the_published_ones(shape: tuple[str, int, int, int]) -> None:
    name, channels, classes, size = shape
    with torch.device("meta"):
        net = build(name, channels=channels, classes=classes, size=size)
    assert sum(parameter.numel() for parameter in net.parameters()) == COUNTS[shape]


def test_every_architecture_is_counted() -> None:
    assert {name for name, *_ in COUNTS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(("channels", "size"), [(1, 17), (3, 16)])
def test_images_become_logits_and_gradients_come_back(name: str, channels: int, size: int) -> None:
    torch.manual_seed(0)
    net = narrow(name, channels=channels, classes=7, size=size).eval()
    x = images(2, channels, size, size).requires_grad_()
    logits = net(x)
    assert logits.shape == (2, 7)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_constructor_defaults_fit_each_other(name: str) -> None:
    with torch.device("meta"):
        net = ARCHITECTURES[name]()
        settings = net.settings
        logits = net(torch.empty(2, settings["channels"], settings["size"], settings["size"]))
    assert logits.shape == (2, settings["classes"]) == (2, 10)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_settings_written_as_json_rebuild_the_network(name: str) -> None:
    net = narrow(name, channels=3, classes=4, size=19).eval()
    rebuilt = build(name, **json.loads(json.dumps(net.settings))).eval()
    rebuilt.load_state_dict(net.state_dict())
    assert rebuilt.settings == net.settings
    x = images(2, 3, 19, 19)
    assert torch.equal(rebuilt(x), net(x))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("aaa-f", {"hidden": 6}),
        ("aaa-f", {"depth": 1}),
        ("aaa-f", {"kernel": 5}),
        ("cnn", {"width": 5}),
        ("densenet121", {"blocks": [1, 2, 1], "growth": 4}),
        ("madry-cifar", {"units": 2}),
        ("madry-cifar", {"widths": [4, 8, 8]}),
        ("mlp", {"width": 5}),
        ("resnet20", {"projection": True}),
        ("tinyresnet", {"blocks": [2], "widths": [8]}),
        ("vgg16", {"depths": [1, 1], "widths": [4, 4]}),
    ],
)
def test_every_setting_changes_the_network_and_is_kept(name: str, more: dict[str, object]) -> None:
    shape = {"channels": 1, "classes": 10, "size": 8}
    plain, changed = build(name, **shape), build(name, **shape, **more)
    again = build(name, **changed.settings)
    assert [value.shape for value in again.parameters()] == [value.shape for value in changed.parameters()]
    assert [value.shape for value in plain.parameters()] != [value.shape for value in changed.parameters()]


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in SIZED])
def test_networks_that_pool_to_a_pixel_take_any_shape(name: str) -> None:
    net = narrow(name, channels=1, classes=3, size=32).eval()
    assert net(images(1, 1, 7, 9)).shape == (1, 3)
    assert net(images(1, 1, 1, 1)).shape == (1, 3)


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 28, 28), (2, 1, 28, 27)])
def test_images_of_another_size_are_refused(name: str, shape: tuple[int, ...]) -> None:
    net = build(name, channels=1, classes=10, size=28)
    with pytest.raises(InputError, match=r"built for \(B, 1, 28, 28\): build it with"):
        net(images(*shape))


@pytest.mark.parametrize(
    ("name", "least"), [("fastat", 4), ("lenet5", 4), ("marabou", 10), ("smallcnn", 16), ("zheng", 4)]
)
def test_too_small_images_are_refused_and_the_least_size_works(name: str, least: int) -> None:
    net = build(name, channels=1, classes=3, size=least)
    assert net(images(2, 1, least, least)).shape == (2, 3)
    for size in range(1, least):
        with pytest.raises(InputError, match=f"{size}x{size} pixels are too small .* at least {least}x{least}"):
            build(name, channels=1, classes=3, size=size)


@pytest.mark.parametrize("name", ["aaa-b", "aaa-c", "aaa-f", "cnn", "madry-mnist", "mlp", "resnet4b"])
def test_the_others_take_a_single_pixel(name: str) -> None:
    assert build(name, channels=1, classes=3, size=1).eval()(images(2, 1, 1, 1)).shape == (2, 3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_symbolic_trace_computes_the_same(name: str) -> None:
    net = narrow(name, channels=1, classes=3, size=16).eval()
    x = images(2, 1, 16, 16)
    assert torch.equal(torch.fx.symbolic_trace(net)(x), net(x))


@pytest.mark.parametrize("name", ["cnn", "madry-cifar", "resnet20", "squeezenet"])
def test_torch_export_computes_the_same_for_any_batch(name: str) -> None:
    net = narrow(name, channels=1, classes=3, size=8).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (images(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    x = images(5, 1, 8, 8)
    torch.testing.assert_close(program.module()(x), net(x))


def test_an_unknown_architecture_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="no classifier architecture called 'resnet-20': did you mean 'resnet20'"):
        build("resnet-20", channels=3, classes=10, size=32)


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"classes": 1}, {"size": 0}, {"size": 8.0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    ((what, number),) = wrong.items()
    with pytest.raises(InputError, match=f"A classifier's {what} is {number}"):
        build("cnn", **{"channels": 1, "classes": 10, "size": 8, **wrong})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError, match="'mlp' does not take the settings depth"):
        build("mlp", channels=1, classes=10, size=8, depth=3)


def test_the_feature_scale_of_zheng_is_not_a_batchnorm() -> None:
    net = build("zheng", channels=1, classes=3, size=8)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    assert not any(isinstance(module, nn.BatchNorm1d) for module in net.modules())
    x = images(4, 1, 8, 8)
    assert torch.equal(net.train()(x), net.eval()(x))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    with torch.no_grad():
        net.affine.scale.zero_()
        net.affine.offset.fill_(2)
    torch.testing.assert_close(net(x), (2 * net.fc2.weight.sum(1) + net.fc2.bias).expand(4, 3))
