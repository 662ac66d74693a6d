"""Noise: a random allowed image, whatever is attacked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from forefend.attacks.noise import Noise
from forefend.evaluation.trial import Trial
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

THREATS = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)


def never(x: Tensor) -> Tensor:
    raise AssertionError("noise called the network")


@THREATS
def test_noise_does_not_call_the_classifier(threat: ThreatModel, x: Tensor, y: Tensor) -> None:
    rng = KeyedRNG(torch.arange(6), 3, "noise")
    noisy = Noise(threat)(never, x, y, rng=rng)
    assert torch.equal(noisy, threat.noise(x, rng))
    assert bool(threat.allows(noisy, x).all())
    assert bool((noisy != x).flatten(1).any(1).all())


def test_noise_differs_between_restarts(x: Tensor, y: Tensor) -> None:
    rng = KeyedRNG(torch.arange(6))
    first, again, other = (Noise(Linf(0.1))(never, x, y, rng=rng.fold_in(restart=r)) for r in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_trial_has_identity_and_zero_cost() -> None:
    trial = Trial("noise", Noise(Linf("8/255")), Linf("8/255"), restarts=10)
    assert str(trial) == "Noise(Linf:8/255) x10 in Linf:8/255 [white_box]"
    assert (trial.gradients(), trial.forwards()) == (0, 0)
    assert Noise.averages
