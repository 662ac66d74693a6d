from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.parsing import parse_threat_model
from forefend.threat_models.wasserstein import Wasserstein

pytest.importorskip("scipy")


def row(*pixels: float) -> Tensor:
    return torch.tensor(pixels, dtype=torch.float64).view(1, 1, 1, -1)


def images(seed: int, shape: tuple[int, ...] = (2, 3, 6, 6)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) * 1.6 - 0.3).clamp(0, 1)


def draw_for(x: Tensor, seed: int = 0) -> KeyedRNG:
    return KeyedRNG(torch.arange(len(x)), seed)


def distance(x_adv: Tensor, x: Tensor, window: int = 5) -> float:
    return float(Wasserstein(1, window).distance(x_adv, x))


def test_distance_matches_known_values() -> None:
    # Mass 0.4 moved by one pixel costs 0.4; the image's mass is 0.8, so it moved by half a pixel.
    assert distance(row(0.4, 0.4, 0, 0), row(0.8, 0, 0, 0)) == pytest.approx(0.5, abs=1e-9)
    assert distance(row(0.4, 0, 0.4, 0), row(0.8, 0, 0, 0)) == pytest.approx(1.0, abs=1e-9)
    square, corner = torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    square[0, 0, 0, 0], corner[0, 0, 1, 1] = 0.7, 0.7
    assert distance(corner, square) == pytest.approx(2**0.5, abs=1e-9)


def test_distance_of_equal_images_is_zero() -> None:
    x = images(0)
    torch.testing.assert_close(Wasserstein(1).distance(x, x), torch.zeros(2).double(), atol=1e-9, rtol=0)
    black = torch.zeros(1, 1, 3, 3)
    assert distance(black, black) == 0


def test_distance_beyond_window_needs_intermediate_mass() -> None:
    assert distance(row(0, 0, 0, 0.5), row(0.5, 0, 0, 0)) == float("inf")
    assert distance(row(0, 0, 0, 0.5), row(0.5, 0, 0, 0), window=7) == pytest.approx(3, abs=1e-9)
    # Mass moves up by two along the row, pixel by pixel, each inside the window.
    assert distance(row(0, 0, 0.5, 0.5), row(0.5, 0.5, 0, 0), window=5) == pytest.approx(2, abs=1e-9)
    assert distance(row(0, 0.5, 0.5, 0.5), row(0.5, 0.5, 0.5, 0), window=3) == pytest.approx(1, abs=1e-9)


def test_distance_sums_over_separate_channels() -> None:
    x, y = torch.zeros(1, 2, 1, 3), torch.zeros(1, 2, 1, 3)
    x[0, 0, 0, 0], y[0, 0, 0, 1] = 0.6, 0.6
    x[0, 1, 0, 0], y[0, 1, 0, 2] = 0.2, 0.2
    assert distance(y, x) == pytest.approx((0.6 + 0.2 * 2) / 0.8, abs=1e-7)
    assert distance(x.flip(1), x) == float("inf")


# (seed, height, width, share of black pixels, window): cost over mass by POT 0.9.7.post1, whose
# ot.emd2(x, y, cost, numItermax=10**7) had the Euclidean distance inside the window and 1e6 outside as cost.
POT = {
    (0, 4, 4, 0.0, 5): 0.31150194584005797,
    (1, 6, 5, 0.3, 3): 0.3131054050573329,
    (2, 8, 8, 0.5, 5): 0.4258899374208127,
    (3, 7, 9, 0.0, 5): 0.259222274726025,
    (4, 10, 10, 0.7, 7): 0.46086920137580883,
    (5, 12, 12, 0.2, 5): 0.3181786665706683,
}


def moved_pair(seed: int, height: int, width: int, black: float, window: int) -> tuple[Tensor, Tensor]:
    """Return an image, and the image with 40 % of the mass of every pixel moved at random."""
    random = np.random.RandomState(seed)
    x = np.round(random.rand(height, width), 3)
    x[random.rand(height, width) < black] = 0
    random, y, reach = np.random.RandomState(seed + 1000), np.zeros_like(x), window // 2
    for i in range(height):
        for j in range(width):
            a, b = i + random.randint(-reach, reach + 1), j + random.randint(-reach, reach + 1)
            y[i, j] += 0.6 * x[i, j]
            y[min(max(a, 0), height - 1), min(max(b, 0), width - 1)] += 0.4 * x[i, j]
    return torch.from_numpy(x)[None, None], torch.from_numpy(y)[None, None]


@pytest.mark.parametrize("case", POT, ids=str)
def test_distance_matches_pot(case: tuple[int, int, int, float, int]) -> None:
    x, y = moved_pair(*case)
    assert distance(y, x, window=case[-1]) == pytest.approx(POT[case], rel=1e-9)
    # Rounded to float32, masses no longer match pixel by pixel, and the cost hardly changes.
    assert distance(y.float(), x.float(), window=case[-1]) == pytest.approx(POT[case], rel=1e-6)


@pytest.mark.parametrize("radius", [0.02, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
def test_noise_is_allowed_and_uses_radius(radius: float, channels: int) -> None:
    threat, x = Wasserstein(radius, exact=2), images(1, (2, channels, 6, 6)) / 2
    noisy = threat.noise(x, draw_for(x))
    assert threat.allows(noisy, x).all()
    # Moves that cross could have been cheaper, so that some of the radius is left.
    assert (threat.distance(noisy, x) > 0.3 * radius).all()
    assert (noisy.dtype, noisy.shape) == (x.dtype, x.shape)
    assert not torch.equal(noisy, threat.noise(x, draw_for(x, seed=1)))


@given(seed=st.integers(0, 2**31), radius=st.sampled_from([0.0, 0.01, 0.1, 1.0]))
def test_noise_of_full_pixels_is_allowed(seed: int, radius: float) -> None:
    threat, x = Wasserstein(radius, window=3), images(seed, (2, 1, 3, 4))
    assert threat.allows(threat.noise(x, draw_for(x)), x).all()


def test_excess_detects_box_mass_and_cost() -> None:
    threat, x = Wasserstein(0.1, exact=0), torch.full((4, 1, 2, 2), 0.5, dtype=torch.float64)
    y = x.clone()
    y[0, 0, 0] = torch.tensor([1.02, -0.02])  # outside the box
    y[1, 0, 0, 0] = 0.52  # mass made
    y[2, 0, 0] = torch.tensor([0.8, 0.2])  # 0.3 of 2 moved by a pixel at least
    y[3, 0, 0] = torch.tensor([0.6, 0.4])  # 0.05 of a pixel, allowed
    excess = threat.excess(y, x)
    torch.testing.assert_close(excess, torch.tensor([0.16, 0.01, 0.05, 0.0]).double(), atol=1e-7, rtol=0)
    assert threat.allows(y, x).tolist() == [False, False, False, True]
    box = torch.tensor([[0.0, 1.03], [0.5, 0.5]], dtype=torch.float64).view(1, 1, 2, 2)
    near = box.clone().clamp(max=1.0)
    near[0, 0, 0, 0] = 0.03
    assert float(Wasserstein(5, exact=0).excess(box, near)) == pytest.approx(0.03)


def test_excess_checks_exact_cost_of_first_images() -> None:
    """Mass that moves by two pixels passes the lower bound, which counts one."""
    x, y = row(0.5, 0, 0, 0.5).repeat(3, 1, 1, 1), row(0.25, 0, 0.25, 0.5).repeat(3, 1, 1, 1)
    assert [Wasserstein(0.3, exact=n).allows(y, x).tolist() for n in (0, 1, 9)] == [
        [True, True, True],
        [False, True, True],
        [False, False, False],
    ]
    assert float(Wasserstein(0.3, exact=1).excess(y, x)[0]) == pytest.approx(0.2, abs=1e-9)


def test_allows_refuses_created_mass_and_nan() -> None:
    x = torch.zeros(2, 1, 3, 3)
    y = x.clone()
    y[0, 0, 0, 0], y[1, 0, 1, 1] = 0.1, float("nan")
    for exact in (0, 2):
        threat = Wasserstein(5, exact=exact)
        assert threat.excess(y, x)[1].isnan()
        assert not threat.allows(y, x).any()
        assert threat.allows(x, x).all()
    assert Wasserstein(1).distance(y, x)[1].isnan()


def test_tensor_of_radii_applies_to_each_image() -> None:
    x, y = row(0.8, 0).repeat(2, 1, 1, 1), row(0.4, 0.4).repeat(2, 1, 1, 1)
    threat = Wasserstein(torch.tensor([0.4, 0.6]))
    assert threat.allows(y, x).tolist() == [False, True]
    torch.testing.assert_close(threat.budget(x), torch.tensor([0.32, 0.48]).double())


def test_project_interpolates_towards_x() -> None:
    x, y = row(0.8, 0, 0.2), row(0.4, 0.4, 0.2)
    # The distance is 0.4: half of the way is allowed.
    torch.testing.assert_close(Wasserstein(0.2).project(y, x), row(0.6, 0.2, 0.2), atol=1e-8, rtol=0)


def test_project_restores_box_and_mass() -> None:
    threat, x = Wasserstein(0.1, exact=3), images(2, (3, 3, 5, 5))
    good = threat.noise(x, draw_for(x))
    torch.testing.assert_close(threat.project(good, x), good, atol=0, rtol=0)
    wild = good.clone()
    wild[0] = good[0] * 1.0001  # too much mass
    wild[1] = good[1] * 0.9999  # too little
    wild[2] = good[2] + 1e-3 * torch.randn(good[2].shape)  # both, and outside the box
    assert not threat.allows(wild, x).any()
    mended = threat.project(wild, x)
    assert threat.allows(mended, x).all()
    assert (mended - good).abs().amax() < 0.02


def test_project_of_unreachable_image_raises() -> None:
    with pytest.raises(InputError, match="cannot be reached by moves inside 5 × 5 pixels"):
        Wasserstein(0.1).project(row(0, 0, 0, 0.5), row(0.5, 0, 0, 0))


def test_step_raises_and_names_suitable_attacks(x: Tensor, y: Tensor) -> None:
    attack = PGD(Wasserstein(0.01, exact=0), 1, 0.01)
    with pytest.raises(InputError, match="attack with ProjectedWasserstein or FrankWolfeWasserstein"):
        attack(lambda batch: batch.flatten(1)[:, :4], x, y, rng=draw_for(x))


def test_parse_threat_model_inverts_str() -> None:
    threats = [Wasserstein(0.03), Wasserstein("8/255"), Wasserstein(0.03, window=7), Wasserstein(0.03, exact=0)]
    assert len({str(threat) for threat in threats}) == 4
    assert str(threats[0]) == "Wasserstein:0.03(window=5, exact=2)"
    assert [parse_threat_model(str(threat)) for threat in threats] == threats
    assert parse_threat_model("wasserstein:0.03") == threats[0]
    assert [parse_threat_model("Linf:8/255"), parse_threat_model("l2:0.5")] == [Linf("8/255"), L2(0.5)]
    assert threats[1].norm == "Wasserstein"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Wasserstein(0.1, window=4), "window is 4 pixels.*odd"),
        (lambda: Wasserstein(0.1, window=1), "window is 1 pixels"),
        (lambda: Wasserstein(0.1, exact=-1), "exact cost is -1"),
        (lambda: Wasserstein(-0.1), "not a finite number of at least 0"),
        (lambda: parse_threat_model("Wasserstein:far"), "'far' is not a radius"),
        (lambda: parse_threat_model("Wasserstein:0.1(window=5)"), "is no|no radius"),
    ],
)
def test_invalid_settings_raise(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_distance_without_scipy_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"needs SciPy: pip install 'forefend\[data\]'"):
        distance(row(0.5), row(0.5))
    x = row(0.5, 0.5)
    assert Wasserstein(0.1, exact=0).allows(x, x).all()


def test_module_does_not_import_scipy() -> None:
    source = Path(sys.modules[Wasserstein.__module__].__file__ or "").read_text()
    assert not [line for line in source.splitlines() if line.startswith(("import scipy", "from scipy"))]
