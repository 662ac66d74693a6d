"""HopSkipJump and Boundary against the exact distance to a linear boundary, and the count of their queries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forefend.attacks import Boundary, HopSkipJump
from forefend.attacks.base import Attack
from forefend.checks import InputError
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf

pytest.importorskip("foolbox", reason="the extra blackbox is not installed")


class Halves(nn.Module):
    """Two classes: the logits differ by the weighted sum of the pixels less a bound."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(pixels, generator=torch.Generator().manual_seed(0)))
        self.calls: list[int] = []

    def gap(self, x: Tensor) -> Tensor:
        return ((x - 0.5).flatten(1) * self.weight).sum(1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        gap = self.gap(x)
        return torch.stack([gap, -gap], 1).sign()  # labels alone: no margin


def problem(count: int = 6, size: int = 8) -> tuple[Halves, Tensor, Tensor]:
    f = Halves(size**2)
    x = 0.35 + 0.3 * torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1))
    return f, x, f(x).argmax(1)


def exact(f: Halves, x: Tensor, norm: str) -> Tensor:
    """The distance to the hyperplane, which lies inside the box here."""
    size = f.weight.abs().sum() if norm == "Linf" else f.weight.norm()
    return (f.gap(x).abs() / size).double()


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_hop_skip_jump_reaches_the_exact_distance_to_a_linear_boundary(norm: str) -> None:
    f, x, y = problem()
    ratios = HopSkipJump(f"{norm}:0.1", queries=2000).nearest(f, x, y).distance / exact(f, x, norm)
    assert bool((ratios >= 1 - 1e-5).all())
    assert float(ratios.max()) < 1.2


def test_hop_skip_jump_comes_nearer_with_more_queries() -> None:
    f, x, y = problem()
    few, many = (HopSkipJump("L2:0.1", queries=n).nearest(f, x, y).distance for n in (300, 3000))
    assert bool((many < few).all())


def test_boundary_approaches_the_exact_distance() -> None:
    f, x, y = problem(4, size=3)
    few, many = (Boundary("L2:0.1", queries=n).nearest(f, x, y).distance / exact(f, x, "L2") for n in (40, 600))
    assert bool((many >= 1 - 1e-5).all())
    assert float(many.max()) < 1.3 < float(few.min())


@pytest.mark.parametrize("attack", [HopSkipJump("L2:0.1", queries=150), Boundary("Linf:0.01", queries=150)], ids=str)
def test_queries_are_exactly_those_of_the_budget(attack: Any) -> None:
    f, x, y = problem(3)
    f.calls.clear()
    found = attack.nearest(f, x, y)
    assert found.queries.tolist() == [150] * 3
    assert sum(f.calls) == 450
    assert attack.forwards == 150
    assert attack.gradients == 0


@pytest.mark.parametrize("kind", [HopSkipJump, Boundary])
@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_attack_ends_with_the_first_image_inside_the_ball(kind: Callable[..., Any], norm: str) -> None:
    f, x, y = problem(4)
    radius = (2 if kind is HopSkipJump else 8) * float(exact(f, x, norm).max())  # Boundary is slow
    attack = kind(f"{norm}:{radius}", queries=1000)
    f.calls.clear()
    x_adv = attack(f, x, y)
    assert sum(f.calls) < 4 * 1000
    assert bool((f(x_adv).argmax(1) != y).all())
    assert bool(attack.threat.allows(x_adv, x).all())


def test_image_misclassified_already_costs_one_query_and_is_returned() -> None:
    f, x, y = problem(2)
    found = HopSkipJump("L2:1").nearest(f, x, 1 - y)
    assert torch.equal(found.x_adv, x)
    assert found.distance.tolist() == [0, 0]
    assert found.queries.tolist() == [1, 1]


@pytest.mark.parametrize("kind", [HopSkipJump, Boundary])
def test_classifier_of_one_class_uses_up_its_queries_and_stays_robust(kind: Callable[..., Any]) -> None:
    x, y = torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    attack = kind("L2:1", queries=60)
    found = attack.nearest(lambda x: torch.tensor([1.0, 0.0]).expand(len(x), 2), x, y)
    assert bool(found.distance.isinf().all())
    assert found.queries.tolist() == [60, 60]
    assert torch.equal(attack(lambda x: torch.tensor([1.0, 0.0]).expand(len(x), 2), x, y), x)


def test_equal_keys_give_equal_images_whatever_the_seed_of_torch() -> None:
    f, x, y = problem(3)
    attack: Attack = HopSkipJump("L2:0.05", queries=300)
    rng = KeyedRNG(torch.tensor([4, 9, 2]), seed=1, purpose="test")
    once = attack(f, x, y, rng=rng)
    torch.manual_seed(5)
    assert torch.equal(attack(f, x, y, rng=rng), once)
    assert torch.equal(attack(f, x[1:2], y[1:2], rng=rng.select(torch.tensor([1]))), once[1:2])
    assert not torch.equal(attack(f, x, y, rng=rng.fold_in(restart=1)), once)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HopSkipJump("L2:1", queries=0), "0 queries"),
        (lambda: HopSkipJump("L2:1", samples=0), "samples 0"),
        (lambda: Boundary("Linf:0.1", source_step=0.0), "source step 0"),
        (lambda: HopSkipJump(L2(torch.tensor([1.0, 2.0]))), "one radius"),
        (lambda: HopSkipJump(Linf(torch.tensor([1.0, 2.0]))), "one radius"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_missing_foolbox_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(InputError, match=r"HopSkipJump needs foolbox: pip install 'forefend\[blackbox\]'"):
        HopSkipJump("L2:1")
