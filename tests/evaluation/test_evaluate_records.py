"""What an evaluation leaves on disk and in memory: records that resume and never mix, a summary, untouched networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.threshold_classifier import Shift, Threshold, curve, levels
from helpers.toy_networks import classifier, held, preprocessor, toy_images, train, untouched
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.evaluation import records, results
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.results import Result
from forefend.evaluation.suites import general
from forefend.evaluation.trial import Trial
from forefend.models.defended import Defended
from forefend.models.fingerprint import fingerprint
from forefend.recipes import Natural
from forefend.recipes.base import Networks
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf


def test_evaluate_interrupted_resumes_each_image_once(tmp_path: Path) -> None:
    calls: list[int] = []

    @dataclass(frozen=True)
    class Dying(Shift):
        def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
            if len(self.calls) == 2:
                raise KeyboardInterrupt
            return super().__call__(f, x, target, rng=rng)

        __str__ = Shift.__str__

    def run(attack: Shift, folder: Path | None) -> list[Result]:
        return evaluate(Threshold(), levels(4), [Trial("it", attack, Linf(0.1))], folder=folder, batch_size=10)

    with pytest.raises(KeyboardInterrupt):
        run(Dying(0.1, calls), tmp_path)
    assert calls == [10, 10]
    cells = run(Shift(0.1, calls), tmp_path)
    assert calls == [10, 10, 10, 6]  # the four misclassified images are never attacked
    assert cells == run(Shift(0.1, []), None)
    assert run(Shift(0.1, calls), tmp_path) == cells
    assert len(calls) == 4
    judged = [i for r in records.read(tmp_path / "records.jsonl") if r.trial != "none" for i in r.index]
    assert sorted(judged) == list(range(4, 40))


def test_evaluate_whose_folder_was_deleted_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Deleting(Shift):
        def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
            shutil.rmtree(tmp_path / "e", ignore_errors=True)
            return super().__call__(f, x, target, rng=rng)

    with pytest.raises(InputError, match="e was deleted or replaced meanwhile"):
        evaluate(Threshold(), levels(4), [Trial("it", Deleting(0.1, []), Linf(0.1))], folder=tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_evaluate_refuses_names_that_tables_cannot_show() -> None:
    models = [EvaluatedModel("<script>", Threshold())]
    with pytest.raises(InputError, match="'<script>' has characters"):
        evaluate(models, levels(4), [Trial("it", Shift(0.1, []), Linf(0.1))])


def test_evaluate_larger_sample_attacks_new_images_only(tmp_path: Path) -> None:
    calls: list[int] = []
    trial = [Trial("it", Shift(0.1, calls), Linf(0.1))]
    images = levels()
    evaluate(Threshold(), images.subset(torch.arange(0, 40, 2)), trial, folder=tmp_path)
    evaluate(Threshold(), images, trial, folder=tmp_path)
    assert calls == [20, 20]


def others() -> dict[str, dict[str, Any]]:
    """Evaluations that differ from the first in one thing each."""
    noisy = [Trial("PGD", PGD(Linf(0.1), 1, 0.0), Linf(0.1))]  # lost or not by its random start alone
    first = {"models": Threshold(), "data": levels(), "suite": noisy, "seed": 0}
    defended = Defended(nn.Identity(), Threshold())
    return {
        "first": first,
        "weights": first | {"models": Threshold(0.45)},
        "form": first | {"models": Steep()},
        "defended": first | {"models": [EvaluatedModel("it", defended, defended=True)]},
        "blurred": first | {"models": [EvaluatedModel("it", Defended(nn.AvgPool2d(1), Threshold()), defended=True)]},
        "darkened": first
        | {"models": [EvaluatedModel("it", Defended(nn.Hardtanh(0, 0.5), Threshold()), defended=True)]},
        "seed": first | {"seed": 1},
        "radius": first | {"suite": curve((0.1,))},
        "steps": first | {"suite": [Trial("PGD", PGD(Linf(0.1), 3, 0.03), Linf(0.1))]},
        "split": first | {"data": replace(levels(9), split="train")},
        "set": first | {"data": replace(levels(9), name="other")},
    }


class Steep(Threshold):
    """The same weights, the other answer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(1)


def test_evaluate_never_mixes_other_evaluations(tmp_path: Path) -> None:
    def judged(options: dict[str, Any]) -> list[Result]:
        (tmp_path / "summary.json").unlink(missing_ok=True)  # it would be another's, and refused
        return evaluate(**options, folder=tmp_path, allow_weak=True)

    for name, options in others().items():
        assert judged(options) == evaluate(**options, allow_weak=True), name
    judged(others()["first"])
    lines = len(records.read(tmp_path / "records.jsonl"))
    for options in others().values():
        judged(options)
    assert len(records.read(tmp_path / "records.jsonl")) == lines


def trained_toy() -> nn.Module:
    return train(Natural(epochs=4, batch_size=8), toy_images(), Networks(classifier=classifier())).classifier


@pytest.mark.parametrize("batch_size", [1, 7, 40])
def test_evaluate_does_not_depend_on_batch_size(batch_size: int, tmp_path: Path) -> None:
    network, images = trained_toy(), toy_images(40, seed=1, split="test")
    suite = general.quick(Linf(0.1))
    evaluate(network, images, suite, folder=tmp_path / "a", batch_size=13, allow_weak=True)
    evaluate(network, images, suite, folder=tmp_path / "b", batch_size=batch_size, allow_weak=True)
    verdicts = [
        {
            (r.trial, i, lost)
            for r in records.read(tmp_path / name / "records.jsonl")
            for i, lost in zip(r.index, r.misclassified, strict=True)
        }
        for name in "ab"
    ]
    assert verdicts[0] == verdicts[1]
    assert {lost for _, _, lost in verdicts[0]} == {False, True}


def test_summary_has_exactly_these_fields(tmp_path: Path) -> None:
    models = [
        EvaluatedModel("mine", Threshold(), seen=True),
        EvaluatedModel("mine", Defended(nn.Identity(), Threshold()), defended=True, seen=True),
    ]
    cells = evaluate(models, levels(2), curve((0.1, 0.2)), folder=tmp_path, seed=5)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["format"] == 1
    rows = summary["results"]
    keys = "classifier seen defended attack norm radius n accuracy low high cumulative seed"
    assert [list(row) for row in rows] == [keys.split()] * 6
    assert [f.name for f in fields(Result)] == keys.split()
    assert [(r["attack"], r["norm"], r["radius"]) for r in rows[:3]] == [
        ("none", "", 0.0),
        ("FGSM", "Linf", 0.1),
        ("FGSM", "Linf", 0.2),
    ]
    assert [row["defended"] for row in rows] == [False] * 3 + [True] * 3
    assert {(r["classifier"], r["seen"], r["n"], r["seed"]) for r in rows} == {("mine", True, 40, 5)}
    assert all(0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1 for row in rows)
    assert results.load(tmp_path) == cells


def test_evaluate_leaves_the_model_unchanged() -> None:
    network = trained_toy().train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    front = preprocessor().train()
    before = [(n, held(n), fingerprint(n)) for n in (network, front)]
    models = [EvaluatedModel("bare", network), EvaluatedModel("it", Defended(front, network), defended=True)]
    evaluate(models, toy_images(20), general.quick(Linf(0.1)), allow_weak=True)
    assert all(untouched(n, old) and fingerprint(n) == mark for n, old, mark in before)
    assert all(p.grad is None for n in (network, front) for p in n.parameters())


def test_surrogate_with_other_answers_is_refused(tmp_path: Path) -> None:
    class Closure(nn.Module):
        """A network without a tensor of its own."""

        def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.f = [f]

        def forward(self, x: Tensor) -> Tensor:
            return self.f[0](x)

    def run(f: Callable[[Tensor], Tensor]) -> list[Result]:
        trials = general.black_box(Linf(0.1), {"other": Closure(f)})[3:]
        return evaluate(classifier(), toy_images(8), trials, folder=tmp_path, allow_weak=True)

    first, second = classifier(1), classifier(2)
    assert run(lambda x: first(x)) == run(lambda x: first(x))
    with pytest.raises(InputError, match="surrogate other answers otherwise"):
        run(lambda x: second(x))
