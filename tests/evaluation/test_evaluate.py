"""Evaluation on classifiers whose robust accuracy is known without running it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.calls import Calls
from helpers.threshold_classifier import Shift, Threshold, curve, levels, robust_share
from helpers.toy_networks import classifier, held, toy_images, untouched
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from forefend import data
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation import records
from forefend.evaluation.access import Access
from forefend.evaluation.certification.randomized_smoothing import certify
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.attack_suite import CheckBudget
from forefend.evaluation.gradient_masking.check import check
from forefend.evaluation.results import Result
from forefend.evaluation.suites import general
from forefend.evaluation.trial import Cascade, Trial
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard
from forefend.models.fingerprint import fingerprint
from forefend.models.guide import Guide
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

SMALL = CheckBudget(steps=3, restarts=1, queries=10, samples=2)

RADII = (0.04, 0.1, 0.2, 0.4)


def accuracies(cells: list[Result], attack: str = "FGSM") -> dict[float, float]:
    return {cell.radius: cell.accuracy for cell in cells if cell.attack == attack}


@pytest.mark.parametrize("wrong", [0, 3])
def test_evaluate_threshold_is_exact_at_every_radius(wrong: int) -> None:
    cells = evaluate(Threshold(), levels(wrong), curve(RADII))
    assert accuracies(cells, "none") == {0.0: 1 - wrong / 40}
    assert accuracies(cells) == {radius: robust_share(radius, wrong) for radius in RADII}


def test_evaluate_threshold_is_exact_in_both_norms() -> None:
    threats: list[ThreatModel] = [Linf(0.2), L2(0.4)]  # on 2x2 pixels an l2 radius is twice what each pixel moves
    cells = evaluate(Threshold(), levels(), general.curve(threats))
    assert [(c.norm, c.accuracy) for c in cells] == [
        ("", 1.0),
        ("Linf", robust_share(0.2)),
        ("L2", robust_share(0.2)),
    ]


def test_evaluate_counts_clean_errors_under_every_attack() -> None:
    @dataclass(frozen=True)
    class Mend:
        def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
            return torch.where(x > 0.5, x - 0.04, x + 0.04)

        def __str__(self) -> str:
            return "Mend"

    cells = evaluate(Threshold(), levels(wrong=2), [Trial("Mend", Mend(), Linf(0.04))])
    assert [c.accuracy for c in cells] == pytest.approx([38 / 40, 36 / 40])  # 0.5 - 0.01 and 0.5 - 0.03 are lost too


def gray(count: int = 8) -> ImageDataset:
    """Flat images of level 0.5, of class 0 for a threshold above."""
    x, y = torch.full((count, 1, 2, 2), 0.5), torch.zeros(count, dtype=torch.int64)
    return data.from_tensors("gray", x, y, classes=("dark", "bright"))


@pytest.mark.parametrize("by", [0.1 + 1e-5, 0.3, 0.6, float("nan")])
def test_evaluate_attack_outside_threat_raises_unrecorded(by: float, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"left its threat model Linf:0.1 by .*none was recorded"):
        evaluate(Threshold(0.55), gray(), [Trial("Shift", Shift(by, []), Linf(0.1))], folder=tmp_path)
    assert {record.trial for record in records.read(tmp_path / "records.jsonl")} == {"none"}
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("overshoot", [3e-7, 5e-7, 9e-7])
def test_evaluate_projects_overshoot_of_rounding(overshoot: float) -> None:
    trial = [Trial("Shift", Shift(0.1 + overshoot, []), Linf(0.1))]
    just_above = 0.6 + 1.5e-7  # beyond what is allowed, within what the attack returned
    assert evaluate(Threshold(just_above, 1e6), gray(), trial)[1].accuracy == 1
    assert evaluate(Threshold(0.59, 1e6), gray(), trial)[1].accuracy == 0


def test_evaluate_worst_is_per_image_of_several_attacks() -> None:
    up, down = (Trial(name, Shift(by, []), Linf(0.1)) for name, by in (("up", 0.1), ("down", -0.1)))
    cells = {c.attack: c for c in evaluate(Threshold(), levels(), [up, down])}
    half = (1 + robust_share(0.1)) / 2  # each pushes one side across
    assert [cells[name].accuracy for name in ("up", "down", "worst")] == pytest.approx([half, half, robust_share(0.1)])
    assert [c.attack for c in evaluate(Threshold(), levels(), [up])] == ["none", "up"]
    two_norms = [up, Trial("far", Shift(0.1, []), L2(0.3))]
    assert "worst" not in {c.attack for c in evaluate(Threshold(), levels(), two_norms)}


def test_cumulative_never_rises_with_the_radius() -> None:
    suite = [Trial("Shift", Shift(by, []), Linf(radius)) for by, radius in ((0.02, 0.3), (0.2, 0.2), (-0.1, 0.1))]
    cells = sorted(evaluate(Threshold(), levels(1), suite)[1:], key=lambda c: c.radius)
    assert [c.accuracy for c in cells] == pytest.approx([35 / 40, 29 / 40, 38 / 40])
    assert [c.cumulative for c in cells] == pytest.approx([35 / 40, 25 / 40, 25 / 40])
    assert all(c.low < c.accuracy < c.high for c in cells)


def test_evaluate_restarts_break_more() -> None:
    noise = PGD(Linf(0.3), 1, 0.0)
    once, often = (
        evaluate(Threshold(), levels(), [Trial("noise", noise, Linf(0.3), restarts)])[1].accuracy for restarts in (1, 9)
    )
    assert often < once


def test_evaluate_bare_defended_network_is_named_so() -> None:
    network = classifier()
    guides = [{"name": "one", "fingerprint": fingerprint(network)}]
    for card, seen in ((DefenseCard("identity", guides=guides), True), (DefenseCard("identity"), False)):
        cells = evaluate(Defended(Defense(nn.Identity(), card), network), toy_images(), [])
        assert [(c.defended, c.seen) for c in cells] == [(True, seen)]
    assert [(c.defended, c.seen) for c in evaluate(Threshold(), levels(), [])] == [(False, False)]


class Drawing(nn.Module):
    """Draws from torch's generators and answers as if it had not."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = classifier()(x)
        return logits + 0 * torch.randn_like(logits)


@pytest.mark.parametrize(
    "judge",
    [
        lambda network, images: evaluate(network, images, general.quick(Linf(0.05))[:2], allow_weak=True),
        lambda network, images: certify(network, images, n=10, n0=5, alpha=0.1),
        lambda network, images: check(network, images, Linf(0.05), budget=SMALL),
    ],
    ids=["evaluate", "certify", "check"],
)
def test_random_state_of_the_caller_is_restored(judge: Callable[[nn.Module, ImageDataset], Any]) -> None:
    before = torch.get_rng_state()
    judge(Drawing(), toy_images(12))
    assert torch.equal(torch.get_rng_state(), before)


def test_random_state_of_the_caller_survives_a_loader() -> None:
    x, y, _ = toy_images(12).batch(torch.arange(12))
    before = torch.get_rng_state()
    evaluate(classifier(), DataLoader(TensorDataset(x, y), 4, shuffle=True), [], allow_weak=True)
    assert torch.equal(torch.get_rng_state(), before)


@dataclass  # compared by value, and so not hashable
class Plain:
    name: str = "plain"

    def __call__(self, model: nn.Module) -> nn.Module:
        return model


def test_evaluate_accepts_unhashable_views() -> None:
    trials = [replace(trial, access=Access(Plain())) for trial in general.quick(Linf(0.05))]
    assert evaluate(classifier(), toy_images(12), trials, allow_weak=True)
    after = Trial("after", PGD(Linf(0.05), 2, 0.01), Linf(0.05), access=Access(Plain()), run=Cascade(tuple(trials)))
    assert evaluate(classifier(), toy_images(12), [after], allow_weak=True)


def test_evaluate_network_that_changes_raises() -> None:
    class Drifting(Threshold):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.at += 1e-6
            return super().forward(x)

    network = Drifting()
    before = held(network)
    with pytest.raises(InputError, match="changes its own buffers or weights"):
        evaluate(network, levels(), curve((0.1,)))
    assert untouched(network, before)


WRONG: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "probabilities": (lambda x: Threshold()(x).softmax(1), "returns probabilities"),
    "a tuple": (lambda x: (Threshold()(x), x), "returns a tuple, expected one tensor of logits"),
    "one logit": (lambda x: torch.randn(len(x), 1), r"shape \(2, 1\), expected \(2, 2\)"),
    "NaN": (lambda x: Threshold()(x) * float("nan"), "NaN or infinite logits"),
    "the wrong way round": (lambda x: -Threshold()(x), "near chance"),
}


@pytest.mark.parametrize("name", WRONG)
def test_evaluate_refuses_unusable_classifiers(name: str, tmp_path: Path) -> None:
    answer, words = WRONG[name]
    with pytest.raises(InputError, match=words) as error:
        evaluate(Calls(answer), levels(), curve(RADII), folder=tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "summary.json").exists()


def test_evaluate_allows_weak_and_defended_classifiers() -> None:
    weak = Calls(lambda x: -Threshold()(x))
    assert evaluate(weak, levels(), curve(RADII), allow_weak=True)[0].accuracy == 0
    cells = evaluate([EvaluatedModel("it", Defended(nn.Identity(), weak), defended=True)], levels(), curve(RADII))
    assert {c.accuracy for c in cells} == {0.0}


def test_evaluate_refuses_wrong_labels_and_sets() -> None:
    images = levels()
    with pytest.raises(InputError, match="Labels range over 0 … 1, expected 0 … 0"):
        replace(images, classes=("only",))
    with pytest.raises(InputError, match="holds no images"):
        images.subset(torch.arange(0))
    object.__setattr__(images, "labels", images.labels + 1)
    with pytest.raises(InputError, match="Labels range over 1 … 2, expected 0 … 1"):
        evaluate(Threshold(), images, [])


def test_evaluate_guide_equals_its_classifier() -> None:
    assert evaluate(Guide(Threshold()), levels(), curve(RADII)) == evaluate(Threshold(), levels(), curve(RADII))


REAL = [("trades-mnist-smallcnn-robust.pt", 0.9, 1.0), ("secml-mnist-smallcnn.pth", 0.0, 0.1)]


@pytest.mark.parametrize(("file", "low", "high"), REAL)
def test_evaluate_published_classifiers_agree(file: str, low: float, high: float, real_data: Path) -> None:
    network = load_weights("smallcnn", real_data / "classifiers" / file, mean=0, std=1)
    images = data.sample(data.load("mnist", "test"), 100, 0)
    suite = [Trial("PGD-20", PGD(Linf(0.3), 20, 0.03), Linf(0.3))]
    clean, attacked = evaluate(network, images, suite, batch_size=100)
    assert clean.accuracy >= 0.97
    assert low <= attacked.accuracy <= high
