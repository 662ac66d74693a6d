"""Evaluation and training of networks whose gradients are NaN, or inside torch.no_grad and inference_mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, toy_cast, toy_images, train
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.gradient_masking.attack_suite import CheckBudget
from forefend.evaluation.gradient_masking.check import check
from forefend.evaluation.results import Results
from forefend.evaluation.suites import SUITES
from forefend.evaluation.trial import Terms
from forefend.models.fingerprint import fingerprint
from forefend.recipes import Adversarial
from forefend.threat_models.lp import Linf

THREAT = Linf(0.1)


class NaNGradient(nn.Module):
    """The logits of the toy classifier with a NaN gradient, as of sqrt at 0 times 0."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x) + 0 * (0 * x).sqrt().flatten(1).sum(1, keepdim=True)
        return logits


@pytest.mark.parametrize("suite", ["quick", "fast", "standard", "aaa", "rtfe"])
def test_evaluate_nan_gradient_records_no_attack(suite: str, tmp_path: Path) -> None:
    """The same logits with a gradient lose images; without the error these would survive every attack."""
    if suite == "standard":
        pytest.importorskip("pyautoattack", reason="the extra eval is not installed")
    with pytest.raises(InputError, match=r"gradient in .* of image \d+ of the data.* NaN"):
        evaluate(NaNGradient(), toy_images(12), suite, THREAT, folder=tmp_path, allow_weak=True)
    assert not (tmp_path / "records.jsonl").exists() or THREAT.norm not in (tmp_path / "records.jsonl").read_text()


def test_check_nan_gradient_is_refused() -> None:
    with pytest.raises(InputError, match="gradient"):
        check(NaNGradient(), toy_images(12), THREAT, budget=CheckBudget(steps=3, restarts=1, queries=5))


def test_training_nan_gradient_of_the_attack_is_refused() -> None:
    networks = replace(toy_cast(), classifier=NaNGradient())
    with pytest.raises(InputError, match=r"gradient in PGD.*image \d+ of the data"):
        train(Adversarial(THREAT, steps=2, epochs=1, batch_size=16), toy_images(), networks)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("suite", ["quick", "fast"])
def test_evaluate_inside_no_grad_equals_outside(suite: str, context: Callable[[], Any]) -> None:
    trials = SUITES[suite](Terms([THREAT], 4))

    def outcome() -> Results:
        return evaluate(classifier(), toy_images(12), trials, allow_weak=True)

    expected = outcome()
    with context():
        assert outcome() == expected


def test_training_inside_no_grad_equals_outside() -> None:
    recipe, images = Adversarial(THREAT, steps=2, epochs=1, batch_size=16), toy_images()

    def trained() -> str:
        networks = toy_cast()
        train(recipe, images, networks)
        return fingerprint(networks.classifier)

    expected = trained()
    with torch.no_grad():
        assert trained() == expected
    assert expected != fingerprint(toy_cast().classifier)
