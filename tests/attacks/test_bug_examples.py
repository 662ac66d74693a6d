from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from forefend.attacks.bug_examples import bug_loss, bugs, shared_features
from forefend.attacks.pgd import fgsm
from forefend.checks import InputError
from forefend.evaluation import suites
from forefend.evaluation.access import Together
from forefend.evaluation.evaluate import evaluate
from forefend.losses import Mean, ce
from forefend.models.defended import Defended, pipelines
from forefend.models.fingerprint import fingerprint
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf


def linear(weight: Tensor, bias: float = 0.0) -> nn.Module:
    """Logits (0, w·x + b) of 2 × 2 images."""
    layer = nn.Linear(4, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(4), weight]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return nn.Sequential(nn.Flatten(), layer)


# Both read the first pixel; the first classifier alone also reads the last, its bug.
FIRST = linear(torch.tensor([5.0, 0.0, 0.0, 5.0]).double(), -4.0)
SECOND = linear(torch.tensor([5.0, 0.0, 0.0, 0.0]).double(), -2.0)
X = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
X[:, 0, 0, 0] = 0.6
Y, WRONG = torch.ones(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
DRAW = KeyedRNG(torch.arange(3))
BOTH = pipelines(nn.Identity(), [FIRST, SECOND])


def test_both_are_right_at_first() -> None:
    assert all((f(X).argmax(1) == Y).all() for f in (FIRST, SECOND))


def test_bug_misleads_the_first_classifier_only() -> None:
    """RTFE's Eq. 7."""
    for threat in (Linf(0.35), L2(0.45)):
        x_adv = bugs(threat, 60, threat.radius / 10)(BOTH, X, (WRONG, Y), rng=DRAW)
        assert threat.allows(x_adv, X).all()
        assert (FIRST(x_adv).argmax(1) == WRONG).all()
        assert (SECOND(x_adv).argmax(1) == Y).all()
        assert (ce(FIRST(x_adv), WRONG) < ce(FIRST(X), WRONG)).all()


def test_a_shared_feature_misleads_both() -> None:
    """RTFE's Eq. 8, at the same radius."""
    x_adv = shared_features(Linf(0.35), 60, 0.035)(BOTH, X, Y, rng=DRAW)
    assert all((f(x_adv).argmax(1) == WRONG).all() for f in (FIRST, SECOND))
    # The classifiers are linear, so the optimum is a corner of the ball.
    torch.testing.assert_close(x_adv[:, 0, 0, 0], X[:, 0, 0, 0] - 0.35)
    torch.testing.assert_close(x_adv[:, 0, 1, 1], X[:, 0, 1, 1] - 0.35)


def test_bug_leaves_pixels_of_the_ensemble_unchanged() -> None:
    x_adv = bugs(Linf(0.35), 60, 0.035)(BOTH, X, (WRONG, Y), rng=DRAW)
    torch.testing.assert_close(x_adv[:, 0, 1, 1], X[:, 0, 1, 1] - 0.35)  # the bug: down all the way
    assert (x_adv[:, 0, 0, 0] > X[:, 0, 0, 0] - 0.2).all()  # the shared pixel: held by the ensemble


def test_the_loss_is_eq_7_negated() -> None:
    logits = [torch.randn(3, 2) for _ in range(3)]
    expected = -(ce(logits[0], WRONG) + (ce(logits[1], Y) + ce(logits[2], Y)) / 2)
    torch.testing.assert_close(bug_loss(logits, (WRONG, Y)), expected)


def test_the_inverse_is_pgd_on_the_mean_of_the_members_losses() -> None:
    step = shared_features(Linf(0.1), 1, 0.1)
    assert step.loss == Mean(ce)
    assert str(bugs(Linf(0.1), 5, 0.02)) == "PGD-5(Linf:0.1, step=0.02, loss=bug_loss, start=random_start)"
    x_adv = fgsm(Linf(0.1), Mean(ce))(BOTH, X, Y, rng=DRAW)
    assert (Mean(ce)(BOTH(x_adv), Y) > Mean(ce)(BOTH(X), Y)).all()


def test_bug_loss_of_one_classifier_raises() -> None:
    with pytest.raises(InputError, match="bug_examples"):
        bugs(Linf(0.35))(FIRST, X, Y)


def test_evaluate_bug_examples_mislead_only_the_evaluated_model() -> None:
    first, second = (copy.deepcopy(network).float() for network in (FIRST, SECOND))
    x = torch.cat([X.float(), torch.zeros(3, 1, 2, 2)]) + torch.arange(6).view(-1, 1, 1, 1) / 1000
    data = x, torch.cat([Y, WRONG])
    (trial,) = suites.bug_examples("Linf:0.35", {"other": second})
    stronger = replace(trial, attack=replace(trial.attack, attack=bugs(Linf(0.35), 60, 0.035)))
    results = evaluate(first, data, [stronger], allow_weak=True)
    # The zero images of the other class are too far from the boundary.
    assert [(result.attack, result.accuracy) for result in results] == [("none", 1.0), ("bugs", 0.5)]
    assert str(trial).endswith(f"[together with other {fingerprint(second)}]")


def test_together_has_the_defense_before_every_classifier() -> None:
    half = Defended(nn.Hardtanh(0.0, 0.5), FIRST)
    mine, theirs = Together({"other": SECOND})(half)(X)
    torch.testing.assert_close((mine, theirs), (FIRST(X.clamp(0, 0.5)), SECOND(X.clamp(0, 0.5))))
