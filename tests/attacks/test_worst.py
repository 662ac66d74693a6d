from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, fgsm
from forefend.attacks.worst import WorstOf
from forefend.losses import margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf


@dataclass
class Painting:
    """An attack that paints images in one gray and remembers what it was given."""

    gray: float
    given: list[tuple[list[int], list[int], int]] = field(default_factory=list)

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG) -> Tensor:
        self.given.append((rng.index.tolist(), target.tolist(), rng.restart))
        return torch.full_like(x, self.gray)

    def __str__(self) -> str:
        return f"paint {self.gray}"


def breaks(**grays: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """An image is lost where its label is among those that its gray breaks."""

    def lost(x_adv: Tensor, y: Tensor) -> Tensor:
        pairs = zip(x_adv[:, 0, 0, 0].tolist(), y.tolist(), strict=True)
        return torch.tensor([label in grays.get(f"g{round(gray * 100)}", []) for gray, label in pairs])

    return lost


X = torch.rand(4, 1, 2, 2)
Y = torch.tensor([0, 1, 2, 3])
DRAW = KeyedRNG(torch.tensor([70, 71, 72, 73]), seed=5)


def test_later_attacks_see_only_survivors_and_the_first_broken_image_is_kept() -> None:
    attacks = Painting(0.25), Painting(0.5), Painting(0.75)
    worst = WorstOf(attacks, breaks(g25=[1], g50=[1, 3], g75=[0, 1, 2, 3]))
    x_adv = worst(nn.Identity(), X, Y, rng=DRAW)
    assert attacks[0].given == [([70, 71, 72, 73], [0, 1, 2, 3], 0)]
    assert attacks[1].given == [([70, 72, 73], [0, 2, 3], 1)]
    assert attacks[2].given == [([70, 72], [0, 2], 2)]
    assert x_adv.amax((1, 2, 3)).tolist() == x_adv.amin((1, 2, 3)).tolist() == [0.75, 0.25, 0.75, 0.5]


def test_an_unbroken_image_is_the_last_attempt() -> None:
    x_adv = WorstOf((Painting(0.25), Painting(0.5)), breaks(g25=[2]))(nn.Identity(), X, Y, rng=DRAW)
    assert x_adv[:, 0, 0, 0].tolist() == [0.5, 0.5, 0.25, 0.5]


def test_nothing_is_left_to_attack_once_all_are_broken() -> None:
    attacks = Painting(0.25), Painting(0.5)
    WorstOf(attacks, breaks(g25=[0, 1, 2, 3]))(nn.Identity(), X, Y, rng=DRAW)
    assert attacks[1].given == []


def test_the_clean_images_are_not_written_over() -> None:
    before = X.clone()
    WorstOf((Painting(0.25),), breaks())(nn.Identity(), X, Y, rng=DRAW)
    assert torch.equal(X, before)


def test_later_forwards_hold_only_survivors() -> None:
    sizes: list[int] = []

    def counting(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return batch.flatten(1)

    attack = PGD(Linf(0.0), 2, 0.1, loss=margin)
    WorstOf((attack,) * 3, lambda x_adv, y: y < 2)(counting, X, Y, rng=DRAW)
    assert sizes == [4, 4, 2, 2, 2, 2]


@pytest.fixture
def classifier() -> nn.Module:
    """Steep, so that where a short attack ends depends on where it started."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 24), nn.Tanh(), nn.Linear(24, 4)).double()
    with torch.no_grad():
        network[1].weight.mul_(8)
    return network


def losing(classifier: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x_adv, y: classifier(x_adv).argmax(1) != y


def test_more_restarts_never_lose_fewer_images(classifier: nn.Module) -> None:
    x, attack, lost = torch.rand(64, 3, 8, 8).double(), PGD(Linf(0.1), 1, 0.01), losing(classifier)
    y, rng = classifier(x).argmax(1), KeyedRNG(torch.arange(64))
    fallen = [lost(WorstOf((attack,) * n, lost)(classifier, x, y, rng=rng), y) for n in range(1, 7)]
    for fewer, more in pairwise(fallen):
        assert (more | ~fewer).all()
    assert fallen[0].sum() < fallen[-1].sum() < 64


def test_restarts_start_at_different_places_and_the_first_like_the_attack_alone(classifier: nn.Module) -> None:
    x = torch.rand(3, 3, 8, 8).double()
    attack, y, rng = PGD(Linf(0.1), 2, 0.01), torch.zeros(3, dtype=torch.int64), KeyedRNG(torch.arange(3))
    never = lambda x_adv, y: torch.zeros(len(y), dtype=torch.bool)  # noqa: E731
    results = [WorstOf((attack,) * n, never)(classifier, x, y, rng=rng) for n in (1, 2, 3)]
    assert torch.equal(results[0], attack(classifier, x, y, rng=rng))
    assert torch.equal(results[1], attack(classifier, x, y, rng=rng.fold_in(restart=1)))
    assert not torch.equal(results[1], results[2])


def test_different_attacks_are_at_least_as_strong_as_each_alone(classifier: nn.Module) -> None:
    x, lost = torch.rand(64, 3, 8, 8).double(), losing(classifier)
    y, rng = classifier(x).argmax(1), KeyedRNG(torch.arange(64))
    members = (fgsm(Linf(0.03)), PGD(L2(0.35), 5, 0.1))
    together = lost(WorstOf(members, lost)(classifier, x, y, rng=rng), y)
    alone = [lost(member(classifier, x, y, rng=rng.fold_in(restart=i)), y) for i, member in enumerate(members)]
    assert torch.equal(together, alone[0] | alone[1])
    assert max(alone[0].sum(), alone[1].sum()) < together.sum() < 64


def test_identities_name_every_attempt_in_order() -> None:
    lost = breaks()
    one, two = Painting(0.25), Painting(0.5)
    assert str(WorstOf((one, two), lost)) == "paint 0.25 | paint 0.5"
    assert len({str(WorstOf(attacks, lost)) for attacks in [(one,), (one, one), (one, two), (two, one)]}) == 4
