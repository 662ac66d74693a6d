from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.data.corruptions import COLOR_ONLY, CORRUPTIONS, SEVERITIES, corrupt, find_corruption
from forefend.data.corruptions.blur import directional_blur
from forefend.data.corruptions.noise import poisson_quantile
from forefend.data.corruptions.resample import box_resize, clipped_zoom, edge, gaussian_smooth, reflect, symmetric
from forefend.data.corruptions.weather import plasma
from forefend.runtime.rng import KeyedRNG

STILL = {"defocus_blur", "gaussian_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
STILL |= {"saturate"}
EACH = pytest.mark.parametrize("name", CORRUPTIONS)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def rng(*index: int, seed: int = 0) -> KeyedRNG:
    return KeyedRNG(torch.tensor(index), seed)


@pytest.fixture(autouse=True)
def pillow(request: pytest.FixtureRequest) -> None:
    if "jpeg_compression" in request.node.name and "without" not in request.node.name:
        pytest.importorskip("PIL")


SHAPES = [(2, 3, 32, 32), (2, 1, 28, 28), (1, 1, 8, 8), (1, 3, 12, 21), (1, 3, 100, 104)]


@pytest.mark.parametrize(
    ("name", "shape"), [(n, s) for n in CORRUPTIONS for s in SHAPES if s[1] == 3 or n not in COLOR_ONLY]
)
def test_corrupt_returns_images_in_range(name: str, shape: tuple[int, int, int, int]) -> None:
    x = images(*shape)
    kept = x.clone()
    for severity in (1, 3, 5):
        found = corrupt(name, x, severity, rng=rng(*range(len(x))))
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        assert bool(((found >= 0) & (found <= 1)).all())
        # One impulse in a hundred values, or a drop, may miss an image of 64 pixels.
        assert not torch.equal(found, x) or (name in ("impulse_noise", "spatter") and shape[2] == 8)
    assert torch.equal(x, kept)


@EACH
def test_corrupt_of_image_does_not_depend_on_batch(name: str) -> None:
    x = images(5, 3, 32, 32)
    for severity in (3, 5):
        together = corrupt(name, x, severity, rng=rng(7, 8, 9, 10, 11))
        alone = corrupt(name, x[2:3], severity, rng=rng(9))
        assert torch.allclose(together[2:3], alone, atol=1e-5)


@EACH
def test_corrupt_depends_on_seed_and_image_only(name: str) -> None:
    x = images(1, 3, 32, 32).expand(2, -1, -1, -1)
    first = corrupt(name, x, 5, rng=rng(4, 5))
    torch.rand(3)
    assert torch.equal(corrupt(name, x, 5, rng=rng(4, 5)), first)
    assert torch.equal(corrupt(name, x, 5, rng=rng(4, 5, seed=1)), first) == (name in STILL)
    assert torch.equal(first[0], first[1]) == (name in STILL)


def test_corrupt_draws_own_numbers_per_name_and_severity() -> None:
    x = torch.full((1, 3, 32, 32), 0.5)
    noises = [(corrupt("gaussian_noise", x, level, rng=rng(0)) - x) / by for level, by in ((1, 0.04), (2, 0.06))]
    noises.append((corrupt("speckle_noise", x, 1, rng=rng(0)) - x) / 0.03)
    correlated = torch.corrcoef(torch.stack([noise.flatten() for noise in noises]))
    assert float((correlated - torch.eye(3)).abs().max()) < 0.1


@EACH
def test_corrupt_changes_more_at_higher_severity(name: str) -> None:
    """Severity 5 changes images more than severity 1; saturation first falls and then rises."""
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    x = (0.5 + 0.4 * torch.sin(torch.stack([row / 4, column / 3, (row + column) / 5]))).expand(12, -1, -1, -1)
    changes = [float((corrupt(name, x, level, rng=rng(*range(12))) - x).abs().mean()) for level in SEVERITIES]
    assert changes[0] > 0
    if name not in ("saturate", "elastic_transform", "spatter"):
        assert changes[4] > 1.2 * changes[0]


def test_corrupt_with_frost_or_unknown_name_raises() -> None:
    with pytest.raises(InputError, match="needs photographs"):
        find_corruption("frost")
    with pytest.raises(InputError, match="did you mean 'fog'"):
        find_corruption("fogg")


@pytest.mark.parametrize("severity", [0, 6, -1])
def test_corrupt_with_severity_out_of_range_raises(severity: int) -> None:
    for name in ("fog", "jpeg_compression"):
        with pytest.raises(InputError, match=f"severity is {severity}, expected a whole number from 1 to 5"):
            corrupt(name, images(1, 3, 8, 8), severity, rng=rng(0))


def test_corrupt_of_unsuitable_images_raises() -> None:
    with pytest.raises(InputError, match="divide by 255"):
        corrupt("fog", 255 * images(1, 3, 8, 8), 1, rng=rng(0))
    with pytest.raises(InputError, match="Gray images have no saturation"):
        corrupt("saturate", images(1, 1, 8, 8), 1, rng=rng(0))


def test_jpeg_without_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"pip install 'forefend\[data\]'"):
        corrupt("jpeg_compression", images(1, 3, 8, 8), 1, rng=rng(0))


def test_large_images_use_imagenet_c_constants() -> None:
    for side, lift in ((96, 0.30), (97, 0.5)):
        x = torch.full((1, 1, side, side), 0.25)
        assert torch.allclose(corrupt("brightness", x, 5, rng=rng(0)), x + lift)


def test_corruptions_match_known_values() -> None:
    pixel = torch.tensor([0.2, 0.4, 0.1]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    brighter = corrupt("brightness", pixel, 2, rng=rng(0))[0, :, 0, 0]
    assert torch.allclose(brighter, torch.tensor([0.25, 0.5, 0.125]))  # the value 0.4 → 0.5, ratios kept
    paler = corrupt("saturate", pixel, 1, rng=rng(0))[0, :, 0, 0]
    assert torch.allclose(paler, torch.tensor([0.34, 0.4, 0.31]))  # the distance to the value 0.4, times 0.3
    halves = torch.cat([torch.zeros(1, 1, 8, 4), torch.ones(1, 1, 8, 4)], 3)
    assert corrupt("contrast", halves, 5, rng=rng(0)).unique().tolist() == pytest.approx([0.425, 0.575])
    for name in ("gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"):
        even = torch.full((1, 3, 32, 32), 128 / 255)
        assert torch.allclose(corrupt(name, even, 3, rng=rng(0)), even, atol=1.01 / 255), name


def test_impulse_noise_has_given_share_half_white() -> None:
    x = torch.full((20, 3, 32, 32), 0.5)
    found = corrupt("impulse_noise", x, 5, rng=rng(*range(20)))
    for value in (0, 1):
        assert float((found == value).float().mean()) == pytest.approx(0.035, abs=0.003)
    assert float((found == 0.5).float().mean()) == pytest.approx(0.93, abs=0.004)


def test_poisson_quantile_matches_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    means = torch.cat([torch.linspace(0, 3, 61), torch.linspace(3, 60, 58), torch.linspace(60, 500, 45)]).double()
    bits = torch.cat([torch.tensor([0, 1, 16, 99, 2**14]), torch.arange(2**17, 2**24, 2**18)])
    u = torch.cat([bits, 2**24 - 1 - bits]).double() / 2**24
    mean, u = torch.meshgrid(means, u, indexing="ij")
    wanted = torch.from_numpy(stats.poisson.ppf((u + 2**-25).numpy(), mean.numpy()))
    assert torch.equal(poisson_quantile(mean, u), wanted.clamp_min(0))


def test_directional_blur_follows_its_direction() -> None:
    x = torch.zeros(2, 1, 9, 9)
    x[:, :, 4, 4] = 1
    row, column = directional_blur(x, 2, 1.0, torch.tensor([0.0, 90.0]))[:, 0]
    assert torch.nonzero(row > 0).tolist() == [[4, k] for k in range(5)]
    assert torch.allclose(column, row.T)
    weights = torch.exp(-(torch.arange(5.0) ** 2) / 2)
    assert torch.allclose(row[4, :5].flip(0), weights / weights.sum())


def test_border_modes_match_known_values() -> None:
    place = torch.arange(-4, 7)
    assert edge(place, 3).tolist() == [0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2]
    assert reflect(place, 3).tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert symmetric(place, 3).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert reflect(place, 1).unique().tolist() == [0]


def test_blur_zoom_and_box_resize_match_known_values() -> None:
    x = images(1, 2, 9, 7)
    assert gaussian_smooth(x, 0) is x
    assert torch.allclose(gaussian_smooth(x, 50.0, border=symmetric).std((2, 3)), torch.zeros(2), atol=1e-2)
    assert torch.equal(clipped_zoom(x, 1.0), x)
    assert torch.allclose(box_resize(images(1, 1, 4, 4), (2, 2)), torch.nn.functional.avg_pool2d(images(1, 1, 4, 4), 2))
    assert torch.equal(box_resize(x, (18, 7))[:, :, ::2], x)


def test_plasma_of_sparse_noise_matches_known_values() -> None:
    noise = torch.zeros(1, 4, 4)
    noise[0, 2, 2] = 1  # the middle is the highest; the corner, from which all starts, stays the lowest
    land = plasma(noise, 2.0)[0]
    assert (float(land[2, 2]), float(land[0, 0])) == (1, 0)
    assert float(land[0, 2]) == float(land[2, 0]) == 0.5  # two middles and two corners
    assert torch.allclose(land[1::2, 1::2], torch.full((2, 2), 0.5))  # corner, middle and two edges


def test_corrupt_without_rng_numbers_images_with_seed_0() -> None:
    x = torch.rand(3, 3, 32, 32)
    drawn = corrupt("gaussian_noise", x, 3)
    assert torch.equal(drawn, corrupt("gaussian_noise", x, 3, rng=KeyedRNG(torch.arange(3))))
    assert not torch.equal(drawn, corrupt("gaussian_noise", x, 3, rng=KeyedRNG(torch.arange(3), seed=1)))
