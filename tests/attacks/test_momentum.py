from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.attacks.momentum import DiverseInput, GaussianBlur, Momentum, di_fgsm, mi_fgsm, ti_bim
from forefend.attacks.pgd import PGD, from_x
from forefend.checks import InputError
from forefend.losses import ce
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

DRAW = KeyedRNG(torch.arange(2))


def wave(*shape: int, by: float) -> Tensor:
    """Numbers that look random and that every machine makes alike."""
    return torch.sin(torch.arange(1, torch.Size(shape).numel() + 1).double() ** 1.5 * by).view(shape).float()


class Tiny(nn.Module):
    """Two layers made by formula, from 3 × 5 × 5 images to four classes."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ wave(75, 12, by=0.37)) @ wave(12, 4, by=0.61)


X, Y = 0.5 + 0.3 * wave(2, 3, 5, 5, by=0.83), torch.tensor([1, 3])
# What torchattacks 3.5.1 makes of X with eps .03, alpha .01, five steps, no random start and no diverse inputs:
# a pixel moved by −3 … 3 steps is a letter a … g.
TORCHATTACKS: dict[str, tuple[Momentum, str]] = {
    "MIFGSM(decay=1)": (
        mi_fgsm(Linf(0.03), 5, 0.01),
        "gaaaaggaaaeaggaaggagagaaagaagagaggagggaaagccagggafagagggaecagcaagaagagaaagagggeaagggg"
        "aaaagaaaaaaaaggaggagagagaaaagggaaagaaagaaagaaaggggagggagaggabggag",
    ),
    "MIFGSM(decay=.5)": (
        mi_fgsm(Linf(0.03), 5, 0.01, decay=0.5),
        "gaaaaggaaaeaggaaggagagcaagaagagaggagggaaagecagggaeagcgggacaagcaagaagagaaagagggeaagggg"
        "aaaagabbaaaaaggaggagaeagaaaagggaaagaaagaaagbaaggggagggagaggaeggag",
    ),
    "TIFGSM(decay=0)": (
        ti_bim(Linf(0.03), 5, 0.01),
        "ggaaaggeaagggaagggeaggggagaaaaggaaaggeaagggaagggcaeggggaceggaaacgaaaaaaaaaagggggacggga"
        "aaggaaaegaaaagaaaaaaaaaaaaaaaaaaaaaaaaaggggggggggggggggggggggggg",
    ),
    "TIFGSM(decay=1, len_kernel=5, nsig=2)": (
        Momentum(Linf(0.03), 5, 0.01, gradient_filter=GaussianBlur(5, 2)),
        "ggaaaggaaagggcaagggaaggaaaaaaaggggagggaagggaagggaaggggggccgggaaagaaaagaaaaagggggaggggaaa"
        "agaaaagaaaggaaaaaaaaaaaaaagaaaaaaaaaaaagggaggggggggggggggggggg",
    ),
}


@pytest.mark.parametrize("name", TORCHATTACKS)
def test_images_are_those_of_torchattacks(name: str) -> None:
    attack, expected = TORCHATTACKS[name]
    moved = (attack(Tiny(), X, Y, rng=DRAW) - X) / 0.01
    torch.testing.assert_close(moved, moved.round(), atol=1e-3, rtol=0)
    assert "".join("abcdefg"[int(steps) + 3] for steps in moved.round().flatten()) == expected


@pytest.mark.parametrize("threat", [Linf(0.03), L2(0.2)], ids=str)
def test_without_momentum_it_is_pgd_from_x(threat: ThreatModel) -> None:
    plain = PGD(threat, 6, threat.radius / 4, start=from_x)(Tiny(), X, Y, rng=DRAW)
    bare = Momentum(threat, 6, threat.radius / 4, decay=0.0)(Tiny(), X, Y, rng=DRAW)
    torch.testing.assert_close(bare, plain)


def test_the_sum_is_of_gradients_scaled_to_a_mean_of_one() -> None:
    """Two steps by hand, on a loss whose gradient is the weights and then 100 times as large."""
    weights = torch.tensor([1.0, -3.0, 2.0, 0.0]).view(1, 1, 2, 2)
    scales = iter([1.0, 100.0])

    def f(x: Tensor) -> Tensor:
        return next(scales) * (x * weights).sum((1, 2, 3))

    attack, x = Momentum(Linf(0.5), 2, 0.01, 0.5, loss=lambda output, target: output), torch.full((1, 1, 2, 2), 0.5)
    state = attack.advance(f, attack.begin(x, DRAW), x, Y[:1], rng=DRAW)
    torch.testing.assert_close(state["sum"], weights / 1.5)
    state = attack.advance(f, state, x, Y[:1], rng=DRAW)
    torch.testing.assert_close(state["sum"], 1.5 * weights / 1.5)
    torch.testing.assert_close(state["x_adv"], x + 0.02 * weights.sign())


def test_a_gradient_of_zero_moves_nothing() -> None:
    x_adv = mi_fgsm(Linf(0.1), 3, 0.05)(lambda x: 0 * x.flatten(1), X, Y, rng=DRAW)
    assert torch.equal(x_adv, X)


def test_a_point_is_blurred_to_the_kernel() -> None:
    point = torch.zeros(1, 2, 31, 31)
    point[0, 1, 15, 15] = 1
    blurred = GaussianBlur()(point)
    places = torch.linspace(-3, 3, 15)
    kernel = torch.exp(-(places[:, None] ** 2 + places**2) / 2)
    torch.testing.assert_close(blurred[0, 1, 8:23, 8:23], kernel / kernel.sum())
    torch.testing.assert_close(blurred[0, 1].sum(), torch.tensor(1.0))
    assert not blurred[0, 0].any()
    edge = torch.zeros(1, 1, 31, 31)
    edge[..., 0, 0] = 1
    torch.testing.assert_close(
        GaussianBlur()(edge)[0, 0, :8, :8], (kernel / kernel.sum())[7:, 7:]
    )  # the rest falls off


def test_shrunk_images_equal_bilinear_ones_padded_with_zeros() -> None:
    x, seen = torch.rand(60, 3, 20, 16), set()
    shown = DiverseInput(chance=1.0, least=0.6)(x, KeyedRNG(torch.arange(60)))
    for image, original in zip(shown, x, strict=True):
        rows, columns = (image.sum((0, 2)) != 0).nonzero(), (image.sum((0, 1)) != 0).nonzero()
        top, height = int(rows.min()), len(rows)
        left, width = int(columns.min()), len(columns)
        small = F.interpolate(original[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        padding = (left, 16 - left - width, top, 20 - top - height)
        torch.testing.assert_close(image, F.pad(small, padding), atol=1e-6, rtol=1e-5)
        seen |= {("height", height), ("width", width), ("at the top", top == 0), ("at the foot", padding[3] == 0)}
    assert {size for name, size in seen if name == "height"} == set(range(12, 20))
    assert {size for name, size in seen if name == "width"} == set(range(9, 16))
    assert {size for name, size in seen if name in ("at the top", "at the foot")} == {True, False}


def test_each_image_is_shrunk_by_chance() -> None:
    x = torch.rand(400, 1, 12, 12)
    rng = KeyedRNG(torch.arange(400))
    for chance in (0.0, 0.3, 1.0):
        kept = (DiverseInput(chance)(x, rng) == x).flatten(1).all(1).float().mean()
        assert abs(kept - (1 - chance)) < 0.08 * (0 < chance < 1) + 1e-9
    assert torch.equal(DiverseInput(1.0, least=1.0)(x, rng), x)  # Zhou's setting: the smallest size is the image's own
    assert not torch.equal(DiverseInput()(x, rng), DiverseInput()(x, rng.fold_in(step=1)))


def test_the_gradient_goes_through_the_shrinking() -> None:
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    rng = KeyedRNG(torch.arange(3))
    assert torch.autograd.gradcheck(lambda x: DiverseInput(0.7, 0.6)(x, rng), (x,))


def test_diverse_inputs_change_with_each_step_and_image() -> None:
    seen: list[Tensor] = []

    def f(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return Tiny()(x)

    x = X[:1].expand(4, -1, -1, -1)
    di_fgsm(Linf(0.0), 6, 0.01)(f, x, torch.zeros(4, dtype=torch.int64), rng=KeyedRNG(torch.arange(4)))
    shown = torch.stack(seen)
    assert len({tuple(image.flatten().tolist()) for image in shown.flatten(0, 1)}) > 2
    assert not torch.equal(shown[:, 0], shown[:, 1])


def test_jatps_ti_bim() -> None:
    assert str(ti_bim(Linf("8/255"))) == (
        "Momentum-40(Linf:8/255, step=0.007, decay=0, loss=ce, shown=as_it_is, smooth=Gaussian 15 to 3)"
    )
    assert str(di_fgsm(L2(0.5), 10, 0.1, 1.0)) == (
        "Momentum-10(L2:0.5, step=0.1, decay=1, loss=ce, shown=diverse 0.5 from 0.9, smooth=unfiltered)"
    )


def test_smoothing_raises_the_loss_too() -> None:
    for smooth in (GaussianBlur(), GaussianBlur(3, 1)):
        attack = replace(ti_bim(Linf(0.05), 10, 0.01), gradient_filter=smooth)
        assert (ce(Tiny()(attack(Tiny(), X, Y, rng=DRAW)), Y) > ce(Tiny()(X), Y)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mi_fgsm(Linf(0.1), 0, 0.01), "0 steps"),
        (lambda: mi_fgsm(Linf(0.1), 5, 0.01, -0.5), "decay -0.5"),
        (lambda: DiverseInput(1.5), r"chance 1.5 .*\[0, 1\]"),
        (lambda: DiverseInput(0.5, 0.0), "least 0"),
        (lambda: GaussianBlur(4), "size 4 .*odd"),
        (lambda: GaussianBlur(5, 0.0), "reach 0"),
    ],
)
def test_bad_settings_raise(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
