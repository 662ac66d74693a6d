"""A budget of least / s² steps, where s is the share of the margin that is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers.threshold_classifier import Threshold, levels
from torch import Tensor

from forefend.attacks.apgd_rotation import APGDRotation
from forefend.attacks.base import Iterative, State
from forefend.attacks.budget import Budgeted
from forefend.attacks.pgd import PGD
from forefend.attacks.square import Square
from forefend.checks import InputError
from forefend.evaluation.evaluate import verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.trial import Trial, stop_at_success
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf


@dataclass(frozen=True)
class Halving(Iterative):
    """Moves each image half of the way to its own nearest point, the mean pixel, for which it needs no gradient."""

    threat: ThreatModel
    nearest: float
    steps: int = 64

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        return {"x_adv": x}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        f(state["x_adv"])
        return {"x_adv": (state["x_adv"] + self.nearest) / 2}


@pytest.mark.parametrize(("share", "expected"), [(1.0, 4), (0.5, 16), (0.25, 64), (0.75, 8)])
def test_budget_is_least_over_the_squared_share(share: float, expected: int) -> None:
    """The margin of the threshold is linear: the share that is left is known at every step."""
    x, y = torch.full((1, 1, 2, 2), 0.9), torch.tensor([1])
    attack = Budgeted(Halving(Linf(1.0), 0.5 + 0.4 * share), 4)
    state, spent = attack.begin(x, KeyedRNG(torch.arange(1))), 0
    while not bool(attack.exhausted(state).all()):
        state = attack.advance(Threshold(), state, x, y, rng=KeyedRNG(torch.arange(1), step=spent))
        spent += 1
    assert spent == pytest.approx(expected, abs=1)


def test_budget_withdraws_from_far_images_only() -> None:
    """PGD over a tenth of the way to the threshold: the images beyond take few steps, and no verdict changes."""
    threat, images, passed = Linf(0.05), levels(), [0]

    class Counting(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            passed[0] += len(x)
            return super().forward(x)

    def broken(attack: Any) -> tuple[dict[int, bool], int]:
        passed[0] = 0
        found = verdicts(EvaluatedModel("it", Counting()), images, [Trial("it", attack, threat, run=stop_at_success)])
        return found[1], passed[0]

    attack = PGD(threat, 50, 0.01)
    (whole, all_steps), (short, few) = broken(attack), broken(Budgeted(attack, 5))
    assert short == whole
    assert few < all_steps / 2


def test_budgeted_is_the_attack_where_the_budget_is_not_spent() -> None:
    x, y, _ = levels().batch(torch.arange(40))
    attack = PGD(Linf(0.05), 5, 0.01)
    rng = KeyedRNG(torch.arange(40), 3, "it")
    assert torch.equal(Budgeted(attack, 5)(Threshold(), x, y, rng=rng), attack(Threshold(), x, y, rng=rng))


def test_budget_takes_logits_of_double_precision() -> None:
    """The state of the attack begins in the images' precision, and continues in that of the logits."""

    class Double(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).double()

    images, threat = levels(), Linf(0.05)
    trial = Trial("it", Budgeted(APGDRotation(threat, 2), 10), threat, run=stop_at_success)
    found, same = (verdicts(EvaluatedModel("it", network), images, [trial]) for network in (Double(), Threshold()))
    assert found == same


def test_budgeted_tells_the_attack_s_threat_classes_and_cost() -> None:
    rotation, square = APGDRotation("Linf:0.1", 4), Square("Linf:0.1", 70)
    assert Budgeted(rotation, 20).threat == rotation.threat
    assert Budgeted(rotation, 20).classes == 4
    assert not hasattr(Budgeted(square, 20), "classes")
    assert (Budgeted(rotation, 20).gradients, Budgeted(rotation, 20).forwards) == (720, 0)
    assert (Budgeted(square, 20).gradients, Budgeted(square, 20).forwards) == (0, 70)
    assert str(Budgeted(square, 20)) == f"Budgeted-20({square})"


@pytest.mark.parametrize("least", [0, -1, 6])
def test_budget_that_does_not_fit_is_refused(least: int) -> None:
    with pytest.raises(InputError, match=r"smallest budget .* give 1 to 5"):
        Budgeted(PGD("Linf:0.1", 5), least)
