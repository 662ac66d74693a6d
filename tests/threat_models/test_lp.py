from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.formatting import format_radius
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, parse_radius
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.parsing import parse_threat_model

NORMS = pytest.mark.parametrize("norm", [Linf, L2])
seeds = st.integers(0, 2**31)
radii = st.sampled_from([0.0, 1 / 255, 8 / 255, 0.1, 0.3, 1.0])
shapes = st.sampled_from([(1, 1, 2, 2), (2, 3, 4, 4), (3, 1, 5, 2)])


def clean_and_wild(seed: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return images with some black and white pixels, and points mostly outside ball and box."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(shape, generator=generator, dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    return x, x + torch.randn(shape, generator=generator, dtype=dtype)


def row(*pixels: float) -> Tensor:
    return torch.tensor(pixels).view(1, 1, 1, -1)


def test_linf_project_clips_to_ball_and_box() -> None:
    projected = Linf(0.1).project(row(0.9, -0.3, 1.2, 0.45), row(0.5, 0.05, 0.95, 0.5))
    torch.testing.assert_close(projected, row(0.6, 0.0, 1.0, 0.45))


def test_l2_project_scales_then_clips() -> None:
    torch.testing.assert_close(L2(0.25).project(row(0.8, 0.9), row(0.5, 0.5)), row(0.65, 0.7))
    torch.testing.assert_close(L2(0.25).project(row(1.2, 0.9), row(0.9, 0.5)), row(1.0, 0.7))
    torch.testing.assert_close(L2(0.5).project(row(0.5, 0.5), row(0.5, 0.5)), row(0.5, 0.5))


def test_distance_matches_known_values() -> None:
    x, x_adv = torch.zeros(2, 1, 1, 2), torch.tensor([[0.3, 0.4], [0.0, -0.5]]).view(2, 1, 1, 2)
    torch.testing.assert_close(Linf(1).distance(x_adv, x), torch.tensor([0.4, 0.5]).double())
    torch.testing.assert_close(L2(1).distance(x_adv, x), torch.tensor([0.5, 0.5]).double())


@NORMS
@given(seed=seeds, shape=shapes, radius=radii)
def test_project_is_allowed_and_idempotent(
    norm: type[ThreatModel], seed: int, shape: tuple[int, ...], radius: float
) -> None:
    threat = norm(radius)
    x, wild = clean_and_wild(seed, shape)
    once = threat.project(wild, x)
    assert threat.allows(once, x).all()
    torch.testing.assert_close(threat.project(once, x), once, atol=2e-7, rtol=0)


@NORMS
@given(seed=seeds, shape=shapes, radius=radii, share=st.floats(0, 1))
def test_project_of_allowed_image_is_unchanged(
    norm: type[ThreatModel], seed: int, shape: tuple[int, ...], radius: float, share: float
) -> None:
    threat = norm(radius)
    x, wild = clean_and_wild(seed, shape, torch.float64)
    inside = x + share * (threat.project(wild, x) - x)
    torch.testing.assert_close(threat.project(inside, x), inside, atol=1e-12, rtol=0)


@NORMS
@given(seed=seeds, shape=shapes, radius=radii)
def test_project_is_non_expansive(norm: type[ThreatModel], seed: int, shape: tuple[int, ...], radius: float) -> None:
    x, a = clean_and_wild(seed, shape, torch.float64)
    b = clean_and_wild(seed + 1, shape, torch.float64)[1]
    before = (a - b).flatten(1).norm(dim=1)
    after = (norm(radius).project(a, x) - norm(radius).project(b, x)).flatten(1).norm(dim=1)
    assert (after <= before + 1e-12).all()


@NORMS
def test_tensor_of_radii_applies_to_each_image(norm: type[ThreatModel]) -> None:
    x, wild = clean_and_wild(3, (4, 3, 4, 4))  # as many images as columns: a radius must not broadcast over columns
    each = torch.tensor([0.0, 0.1, 0.3, 0.7])
    threat, rng = norm(each), KeyedRNG(torch.arange(4))
    projected, noise, step = threat.project(wild, x), threat.noise(x, rng), threat.step(wild, each)
    for i, radius in enumerate(each.tolist()):
        alone, one = norm(radius), slice(i, i + 1)
        torch.testing.assert_close(projected[one], alone.project(wild[one], x[one]))
        torch.testing.assert_close(noise[one], alone.noise(x[one], KeyedRNG(torch.tensor([i]))))
        torch.testing.assert_close(step[one], alone.step(wild[one], radius))
    moved = threat.distance(projected, x)
    assert (moved[1:] > each[:-1]).all()
    assert threat.allows(projected, x).all()
    assert threat.allows(projected.roll(-1, 0), x.roll(-1, 0)).tolist() == [False, False, False, True]


@given(levels=st.integers(1, 255), radius=st.one_of(st.integers(0, 64).map(lambda k: k / 255), st.floats(0, 0.5)))
def test_allows_tolerates_float32_rounding(levels: int, radius: float) -> None:
    x = torch.full((1, 3, 4, 4), levels / 255)
    for x_adv in ((x + radius).clamp(0, 1), (x - radius).clamp(0, 1)):
        assert Linf(radius).allows(x_adv, x).all()
    corner = x.clone()
    corner[0, 0, 0, 0] = (corner[0, 0, 0, 0] - radius).clamp_min(0)
    assert L2(radius).allows(corner, x).all()


@NORMS
@pytest.mark.parametrize("radius", [0.0, 8 / 255, 0.3])
def test_allows_refuses_just_outside_the_ball(norm: type[ThreatModel], radius: float) -> None:
    x = torch.full((3, 1, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[:, 0, 0, 0] += torch.tensor([radius, radius + 1e-6, -radius - 1e-6])
    assert norm(radius).allows(x_adv, x).tolist() == [True, False, False]


def test_l2_distance_sums_over_all_channels() -> None:
    x = torch.full((1, 3, 4, 4), 0.5)
    assert L2(0.1 * math.sqrt(48)).allows(x + 0.1, x)
    assert not L2(0.1 * math.sqrt(48) - 1e-4).allows(x + 0.1, x)


@NORMS
def test_allows_refuses_outside_the_box(norm: type[ThreatModel]) -> None:
    x = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1, 1, 1)
    x_adv = x + torch.tensor([-1e-6, 1e-6, 0, 0]).view(4, 1, 1, 1)
    assert norm(0.5).allows(x_adv, x).tolist() == [False, False, True, True]


@NORMS
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_allows_refuses_nan(norm: type[ThreatModel], poison: float) -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[1, 0, 1, 0] = poison
    assert norm(1).allows(x_adv, x).tolist() == [True, False]
    assert math.isnan(poison) == bool(norm(1).excess(x_adv, x)[1].isnan())


def test_excess_matches_known_values() -> None:
    x, x_adv = torch.full((3, 1, 1, 1), 0.9), torch.tensor([0.95, 0.5, 1.05]).view(3, 1, 1, 1)
    torch.testing.assert_close(Linf(0.1).excess(x_adv, x), torch.tensor([-0.05, 0.3, 0.05]).double())


def test_linf_step_follows_the_sign() -> None:
    torch.testing.assert_close(Linf(0.3).step(row(3.0, -1e-30, 0.0), 0.01), row(0.01, -0.01, 0.0))


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-25, 1e-8, 1.0, 1e30])
def test_l2_step_length_does_not_depend_on_gradient(scale: float) -> None:
    gradient = scale * torch.tensor([3.0, -4.0]).expand(2, 3, 5, 2)
    step = L2(1).step(gradient, 0.25)
    torch.testing.assert_close(step.flatten(1).norm(dim=1), torch.full((2,), 0.25), atol=1e-6, rtol=0)
    if scale > 1e-38:
        torch.testing.assert_close(step[..., 0] / step[..., 1], torch.full((2, 3, 5), -0.75))


@NORMS
def test_step_of_zero_gradient_is_zero(norm: type[ThreatModel]) -> None:
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[1] = 1
    step = norm(1).step(gradient, 0.5)
    assert (step[0] == 0).all()
    assert (step[1] > 0).all()


@NORMS
@given(seed=seeds, shape=shapes, radius=radii)
def test_noise_is_allowed(norm: type[ThreatModel], seed: int, shape: tuple[int, ...], radius: float) -> None:
    x = clean_and_wild(seed, shape)[0]
    assert norm(radius).allows(norm(radius).noise(x, KeyedRNG(torch.arange(len(x)), seed)), x).all()


def test_linf_noise_is_uniform() -> None:
    x = torch.full((100, 1, 20, 20), 0.5)
    share = (Linf(0.2).noise(x, KeyedRNG(torch.arange(100))) - x) / 0.2  # uniform in [-1, 1)
    places = ((share.flatten().sort().values + 1) / 2).double()
    gap = (places - (torch.arange(40_000) + 0.5) / 40_000).abs().max()
    assert gap < 1.95 / math.sqrt(40_000)  # Kolmogorov and Smirnov, one in a thousand
    assert abs(float((share[:, 0, 0, 0] * share[:, 0, 0, 1]).mean())) < 4 / 3 / math.sqrt(100)


def test_l2_noise_has_all_directions_and_full_length() -> None:
    x = torch.full((4000, 1, 2, 3), 0.5)
    delta = (L2(0.3).noise(x, KeyedRNG(torch.arange(4000))) - x).flatten(1)
    torch.testing.assert_close(delta.norm(dim=1), torch.full((4000,), 0.3))
    direction = delta / 0.3
    assert direction.mean(0).abs().max() < 4 / math.sqrt(6 * 4000)
    torch.testing.assert_close(direction.T @ direction / 4000, torch.eye(6) / 6, atol=0.02, rtol=0)


ROUND_TRIPS = ["0", "1/255", "2/255", "8/255", "16/255", "0.3", "0.031", "0.0314", "128/255", "1", "0.1", "1e-05"]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("radius", ROUND_TRIPS)
def test_parse_threat_model_inverts_str(norm: str, radius: str) -> None:
    assert str(parse_threat_model(f"{norm}:{radius}")) == f"{norm}:{radius}"
    assert parse_threat_model(f"{norm.lower()}:{radius}") == parse_threat_model(f"{norm}:{radius}")


@given(a=st.floats(0, 1), b=st.floats(0, 1))
def test_str_of_threat_model_is_exact_and_distinct(a: float, b: float) -> None:
    assert parse_threat_model(str(Linf(a))) == Linf(a)
    assert parse_threat_model(str(L2(a * 50))) == L2(a * 50)
    assert (str(Linf(a)) == str(Linf(b))) == (a == b)
    assert str(Linf(a)) != str(L2(a))


def test_format_radius_distinguishes_levels_and_decimals() -> None:
    radii = [k / 255 for k in range(256)] + [float(f"{k / 255:.4f}") for k in range(1, 255) if k % 51]
    radii += [math.nextafter(8 / 255, 1), math.nextafter(0.3, 0)]
    assert len({format_radius(radius) for radius in radii}) == len(radii)
    assert format_radius(8 / 255) == "8/255"


def test_radius_as_text_equals_number() -> None:
    assert Linf("8/255") == Linf(8 / 255)
    assert parse_radius("0.5") == parse_radius(0.5) == parse_radius("1/2") == 0.5
    assert Linf("8/255") != L2("8/255")
    assert Linf("8/255").radius == 8 / 255


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Linf:8", ["8 is above 1", "did you mean 8/255?"]),
        ("Linf:nan", ["nan", "finite"]),
        ("Linf:inf", ["inf", "finite"]),
        ("L2:-0.1", ["-0.1", "at least 0"]),
        ("L2:8/0", ["'8/0'", "8/255"]),
        ("L2:1/2/3", ["'1/2/3'"]),
        ("L2:", ["''", "number such as 0.3"]),
        ("L2:a few", ["'a few'"]),
        ("0.3", ["'0.3'", "NORM:RADIUS"]),
        ("Linff:0.3", ["'Linff'", "did you mean 'Linf'?"]),
        ("banana:0.3", ["'banana'", "choose one of L2, Linf"]),
    ],
)
def test_threat_model_of_invalid_input_raises(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        parse_threat_model(text)
    for word in words:
        assert word in str(refusal.value)


def test_linf_radius_above_one_raises_l2_accepts() -> None:
    assert L2(3).radius == 3.0
    with pytest.raises(InputError, match="did you mean 3/255"):
        Linf(3)
