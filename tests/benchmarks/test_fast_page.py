"""The comparison of fast with AutoAttack: counts by hooks, optimality by hand, a page that agrees with its records."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.toy_networks import classifier, toy_images

from benchmarks.fast import page
from benchmarks.fast.counting import Passes, counted
from benchmarks.fast.optimality import area, cumulative, optimality
from benchmarks.pages import renew
from forefend.attacks.pgd import PGD
from forefend.models.optimized_copy import optimized_copy

ROOT = Path(__file__).parents[2] / "results/fast"


@pytest.mark.parametrize("copied", [False, True])
def test_counted_counts_gradients_and_all_forward_passes(copied: bool) -> None:
    x, y, _ = toy_images(6).batch(torch.arange(6))
    network = classifier()
    attacked = optimized_copy(network, x) if copied else network
    passes = Passes()
    with counted(passes):
        x_adv = PGD("Linf:0.1", 4)(attacked, x, y)
        with torch.no_grad():
            network(x_adv)
    attacked(x)  # outside
    assert (passes.gradients, passes.forwards) == (4 * 6, 5 * 6)


def test_page_agrees_with_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT.parents[1])
    assert renew(ROOT / "README.md", page.blocks(ROOT), check=True)


def test_target_row_marks_what_is_missed() -> None:
    def measured(broken: int, gradients: int) -> page.Measured:
        return page.Measured({i: i < broken for i in range(1000)}, Passes(gradients, 10, 1.0, 1.0), 1000)

    reference = page.Measured({i: i < 100 for i in range(1000)}, Passes(1000, 100, 5.0, 5.0), 1000)
    assert page.target_row("it", reference, measured(97, 100))[1:] == ["+0.3", "10.0%", "10.0%", "5.0 ×", ""]
    assert page.target_row("it", reference, measured(96, 100))[-1] == "**missed**"
    assert page.target_row("it", reference, measured(120, 101))[-1] == "**missed**"
    assert page.named("it", reference, measured(101, 1)) == ["it", "–", "100"]


def test_optimality_is_the_share_of_the_fall() -> None:
    """Ten images, one misclassified clean: the best loses five at radius 1 and all at 2, the other two and four."""
    clean, best_at_1, at_1, at_2 = (frozenset(range(n)) for n in (1, 5, 2, 4))
    best = {0.0: clean, 1.0: best_at_1, 2.0: frozenset(range(10))}
    other = {0.0: clean, 1.0: at_1, 2.0: at_2}
    assert area(best, 10) == pytest.approx((0.9 + 0.5) / 2 + 0.5 / 2)
    assert area(other, 10) == pytest.approx((0.9 + 0.8) / 2 + (0.8 + 0.6) / 2)
    assert optimality(other, best, 10) == pytest.approx((1.8 - 1.55) / (1.8 - 0.95))
    assert optimality(best, best, 10) == 1
    assert optimality(dict.fromkeys(best, clean), best, 10) == 0


def test_cumulative_counts_an_image_at_every_larger_radius() -> None:
    first, second = {0.0: frozenset({1}), 1.0: frozenset({1, 2}), 2.0: frozenset({1})}, {1.0: frozenset({3})}
    assert cumulative([first, second]) == {0.0: {1}, 1.0: {1, 2, 3}, 2.0: {1, 2, 3}}
