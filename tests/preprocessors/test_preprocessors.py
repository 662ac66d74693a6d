from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.preprocessors import ARCHITECTURES, build

SIGMOID = ["narrow-unet", "rtfe-unet"]


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 7, 9), (1, 1, 28, 28), (1, 3, 33, 47), (1, 3, 1, 5)])
def test_shape_and_type_are_kept(name: str, shape: tuple[int, ...]) -> None:
    net = build(name, channels=shape[1]).eval()
    restored = net(images(*shape))
    assert restored.shape == shape
    assert restored.dtype == torch.float32
    assert restored.isfinite().all()


@pytest.mark.parametrize("name", SIGMOID)
def test_a_sigmoid_keeps_pixels_in_range_whatever_comes(name: str) -> None:
    restored = build(name, channels=1)(50 * torch.randn(4, 1, 8, 8))
    assert restored.min() >= 0
    assert restored.max() <= 1


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_pixel(name: str, training: bool) -> None:
    torch.manual_seed(0)
    x = images(2, 3, 9, 8).requires_grad_()
    restored = build(name, channels=3).train(training)(x)
    (gradient,) = torch.autograd.grad((restored * images(*restored.shape)).sum(), x)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_settings_written_as_json_rebuild_the_function(name: str) -> None:
    more = {} if name == "identity" else {"widths": (4, 6, 5), "depths": (1, 2, 1)}
    net = build(name, channels=1, **more).eval()
    settings = json.loads(json.dumps(net.settings))
    x = images(2, 1, 7, 7)
    for twin in (build(name, **settings), type(net)(**settings)):
        twin.load_state_dict(net.state_dict())
        assert twin.settings == net.settings == {"channels": 1} | {key: list(value) for key, value in more.items()}
        assert torch.equal(twin.eval()(x), net(x))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_images_of_a_batch_do_not_mix_in_evaluation(name: str) -> None:
    net = build(name, channels=3).eval()
    x = images(3, 3, 9, 9)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["narrow-unet", "residual-unet"])
def test_torch_export_computes_the_same_for_any_batch(name: str) -> None:
    net = build(name, channels=1, widths=(4, 6), depths=(1, 1)).eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (images(2, 1, 9, 8),), dynamic_shapes=({0: batch},))
    x = images(5, 1, 9, 8)
    torch.testing.assert_close(program.module()(x), net(x))


def test_the_empty_preprocessor_returns_the_images_themselves() -> None:
    x = images(2, 3, 4, 4)
    assert build("identity", channels=3)(x) is x


def test_an_unknown_architecture_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match="no preprocessor architecture called 'narow-unet': did you mean 'narrow-unet'"
    ):
        build("narow-unet", channels=3)


@pytest.mark.parametrize("channels", [0, -1, 3.0])
def test_channels_out_of_range_are_refused(channels: int) -> None:
    with pytest.raises(InputError, match=f"channels are {channels}, expected a whole number, at least 1"):
        build("identity", channels=channels)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InputError, match="'narrow-unet' does not take the settings width"):
        build("narrow-unet", channels=3, width=8)
