"""Transformations without weights: known answers and the contract of preprocessors."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.checks import InputError
from forefend.models.preprocessors import ARCHITECTURES, TRANSFORMS, build
from forefend.models.preprocessors.input_transforms import BitDepth, Jpeg, TotalVariation

EACH = pytest.mark.parametrize("name", TRANSFORMS)


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


@EACH
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 7, 9), (1, 3, 33, 47), (1, 3, 1, 5)])
def test_shape_type_and_range_are_kept(name: str, shape: tuple[int, ...]) -> None:
    given = images(*shape)
    changed = build(name, channels=shape[1])(given)
    assert changed.shape == shape
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1


@EACH
def test_settings_written_as_json_rebuild_the_function(name: str) -> None:
    x, first = images(2, 3, 9, 9), build(name, channels=3)
    rebuilt = build(name, **json.loads(json.dumps(first.settings)))
    assert rebuilt.settings == first.settings
    assert torch.equal(rebuilt(x), first(x))
    assert not first.state_dict()
    assert name not in ARCHITECTURES


@EACH
def test_images_do_not_mix_and_the_answer_is_the_same_again(name: str) -> None:
    x, transform = images(3, 3, 9, 9), build(name, channels=3)
    assert torch.equal(transform(x)[1:2], transform(x[1:2]))
    assert torch.equal(transform(x), transform(x))
    assert not torch.equal(transform(x), x)


def test_jpeg_and_bit_depth_have_no_gradient() -> None:
    x = images(2, 3, 9, 8).requires_grad_()
    assert not Jpeg()(x).requires_grad
    (gradient,) = torch.autograd.grad(BitDepth()(x).sum(), x)
    assert not gradient.any()
    (gradient,) = torch.autograd.grad((TotalVariation()(x) * images(2, 3, 9, 8)).sum(), x)
    assert gradient.isfinite().all()
    assert gradient.any(dim=(1, 2, 3)).all()


def test_the_gradient_of_total_variation_is_its_own() -> None:
    x = images(1, 1, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(TotalVariation(steps=5), (x,))
    flat = torch.full((1, 1, 4, 4), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(TotalVariation()(flat).sum(), flat)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("bits", "pixel", "rounded"), [(1, 0.49, 0), (1, 0.51, 1), (3, 0.3, 2 / 7), (2, 0.5, 2 / 3)])
def test_a_pixel_goes_to_the_nearest_of_its_values(bits: int, pixel: float, rounded: float) -> None:
    x = torch.full((1, 1, 2, 2), pixel)
    torch.testing.assert_close(BitDepth(1, bits)(x), torch.full_like(x, rounded))


@given(st.integers(1, 8))
def test_two_to_the_bits_values_are_left(bits: int) -> None:
    x = torch.linspace(0, 1, 4096).view(1, 1, 64, 64)
    left = BitDepth(1, bits)(x)
    assert len(left.unique()) == 2**bits
    assert (left - x).abs().max() <= 0.5 / (2**bits - 1) + 1e-6
    assert torch.equal(BitDepth(1, bits)(left), left)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_what_pillow_writes_and_reads(channels: int, quality: int) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pixels = (images(1, channels, 16, 24) * 255).byte()
    file = io.BytesIO()
    picture = pixels[0].permute(1, 2, 0).numpy()
    pillow.fromarray(picture if channels == 3 else picture[:, :, 0]).save(file, format="JPEG", quality=quality)
    expected = torch.from_numpy(np.array(pillow.open(file)).reshape(picture.shape)).permute(2, 0, 1)
    assert torch.equal((Jpeg(channels, quality)(pixels / 255)[0] * 255).round().byte(), expected)


def test_jpeg_error_depends_on_content_and_quality() -> None:
    gray = torch.full((1, 1, 16, 16), 100 / 255)
    assert (Jpeg(1)(gray) - gray).abs().max() < 1.5 / 255
    x = images(1, 3, 32, 32)
    errors = [(Jpeg(3, quality)(x) - x).square().mean() for quality in (95, 75, 20)]
    assert errors == sorted(errors)


@pytest.mark.parametrize(("weight", "left", "right"), [(0.1, 0.8, 0.4), (0.25, 0.65, 0.55), (0.5, 0.6, 0.6)])
def test_two_pixels_come_nearer_by_the_weight_until_they_meet(weight: float, left: float, right: float) -> None:
    for x in (torch.tensor([0.9, 0.3]).view(1, 1, 1, 2), torch.tensor([0.9, 0.3]).view(1, 1, 2, 1)):
        smooth = TotalVariation(1, weight, steps=200)(x)
        torch.testing.assert_close(smooth.flatten(), torch.tensor([left, right]), atol=1e-4, rtol=0)


def test_each_side_of_an_edge_moves_by_the_weight_over_its_width() -> None:
    x = torch.zeros(1, 1, 4, 8)
    x[..., 4:] = 1
    smooth = TotalVariation(1, 0.2, steps=2000)(x)
    expected = torch.where(x == 1, 0.95, 0.05)
    torch.testing.assert_close(smooth, expected, atol=1e-3, rtol=0)


def test_nothing_near_is_better_than_the_smoothed_image() -> None:
    x, weight = images(1, 1, 6, 7).double(), 0.1

    def objective(u: Tensor) -> float:
        down = torch.nn.functional.pad(u.diff(dim=2), (0, 0, 0, 1))
        along = torch.nn.functional.pad(u.diff(dim=3), (0, 1))
        return float((u - x).square().sum() / 2 + weight * (down.square() + along.square()).sqrt().sum())

    smooth = TotalVariation(1, weight, steps=5000)(x)
    assert abs(float(smooth.mean() - x.mean())) < 1e-9
    assert objective(smooth) < objective(x)
    for _ in range(50):
        assert objective(smooth + 1e-2 * torch.randn_like(x)) > objective(smooth)
    values = [objective(TotalVariation(1, weight, steps)(x)) for steps in (1, 10, 100)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("jpeg", {"channels": 2}, "2 channels.*1 or 3"),
        ("jpeg", {"channels": 3, "quality": 0}, "quality.* 0.*1 to 95"),
        ("bit-depth", {"channels": 3, "bits": 9}, "bit depth is 9"),
        ("total-variation", {"channels": 3, "weight": 0}, "weight 0 and 30 steps"),
        ("total-variation", {"channels": 3, "steps": 0}, "0 steps"),
        ("total-variation", {"channels": 3, "bits": 2}, "does not take the settings bits"),
    ],
)
def test_settings_out_of_range_are_refused(name: str, settings: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(name, **settings)


def test_without_pillow_jpeg_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(InputError, match=r"needs Pillow: pip install 'forefend\[data\]'"):
        Jpeg()(images(1, 3, 8, 8))
