"""The suite fast: exact on known optima, never worse than its parts, the same however the work is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.results import broken
from helpers.threshold_classifier import Threshold, levels
from helpers.toy_networks import CLASSES, classifier, toy_images, trained_classifier
from torch import Tensor, nn

import forefend as ff
from forefend.attacks.apgd_rotation import APGDRotation
from forefend.attacks.auto_pgd import APGD
from forefend.attacks.budget import Budgeted
from forefend.attacks.pgd import from_x
from forefend.attacks.square import Square
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation import records
from forefend.evaluation.evaluate import verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites.fast import fast
from forefend.evaluation.trial import Cascade, Suite, Trial, stop_at_success
from forefend.runtime import files
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf


class Corners(nn.Module):
    """Three classes by the mean of a third of the columns; exact robustness in l∞ and l2."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * torch.stack([x[..., 2 * k : 2 * k + 2].mean((1, 2, 3)) for k in range(3)], 1)


def corner_images() -> ImageDataset:
    """Images whose own third is brighter than the others by 0.02, 0.04 … 0.4."""
    y = torch.arange(60) % 3
    x = torch.full((60, 1, 4, 6), 0.5)
    for row in range(60):
        x[row, ..., 2 * y[row] : 2 * y[row] + 2] += 0.02 * (row // 3 + 1)
    return ff.data.from_tensors("corners", x, y)


def short(threat: Linf | L2) -> Trial:
    """The same with few steps."""
    (trial,) = fast(threat, CLASSES)
    (stage,) = trial.stages
    few = replace(stage, attack=Budgeted(APGDRotation(threat, CLASSES, (4, 6), 3), 5))
    return replace(
        trial, attack=Budgeted(replace(trial.attack.attack, steps=30), 5), run=Cascade((few,), stop_at_success)
    )


def some(images: ImageDataset, each: int) -> ImageDataset:
    """A part of the images; those just outside a radius take the whole budget."""
    return images.subset(torch.arange(0, len(images), each))


def attacked(network: nn.Module, images: ImageDataset, suite: Suite, **more: Any) -> frozenset[int]:
    return broken(verdicts(EvaluatedModel("it", network), images, suite, **more)[-1])


@pytest.mark.parametrize("radius", [0.06])
def test_fast_on_two_classes_is_exact(radius: float) -> None:
    images = some(levels(), 4)
    found = ff.evaluate(Threshold(), images, suite="fast", threat=Linf(radius))
    distance = (images.batch(torch.arange(len(images)))[0].mean((1, 2, 3)) - 0.5).abs()
    assert [cell.attack for cell in found] == ["none", "fast"]
    assert found[1].accuracy == pytest.approx(float((distance > radius).float().mean()))


@pytest.mark.parametrize(("threat", "each"), [(Linf(0.101), 0.101), (L2(0.41), 0.41 / 4)], ids=str)
def test_fast_on_three_classes_is_exact(threat: Linf | L2, each: float) -> None:
    """The best attack lowers the eight pixels of the class and raises those of one other class by the same."""
    images = some(corner_images(), 13)
    lost = attacked(Corners(), images, fast(threat, 3))
    assert lost == {row for row in images.index.tolist() if 0.02 * (row // 3 + 1) < 2 * each}


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.7)], ids=str)
def test_fast_breaks_what_its_parts_break_alone(threat: Linf | L2) -> None:
    """The gradients are a part, and so is their first run; Square may find more from where they end."""
    trial, images = short(threat), toy_images(40, seed=1, split="test")
    first_run = Trial("first", APGD(threat, 4, start=from_x), threat, run=stop_at_success)
    alone = [attacked(trained_classifier(), images, [each]) for each in (*trial.stages, first_run)]
    both = attacked(trained_classifier(), images, [trial])
    assert both >= alone[0] >= alone[1]
    assert 0 < len(both) < 40


def test_fast_goes_on_with_queries_from_the_nearest_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gradient leads to the edge of a step, queries cross it."""
    given: list[Tensor] = []
    went_on = Square.go_on

    def spying(self: Square, x: Tensor, x_adv: Tensor, rng: KeyedRNG) -> Any:
        given.append((x_adv - x).abs().flatten(1).amax(1))
        return went_on(self, x, x_adv, rng)

    monkeypatch.setattr(Square, "go_on", spying)
    attacked(Threshold(), some(levels(), 4), fast(Linf(0.06), 2))
    assert torch.cat(given).allclose(torch.tensor(0.06))
    assert len(torch.cat(given)) == 8


@pytest.mark.parametrize("size", [3, 17])
def test_fast_does_not_depend_on_batches_or_companions(size: int) -> None:
    """So that any number of processes may share the images."""
    suite, images = [short(Linf(0.2))], toy_images(24, seed=1, split="test")
    whole = attacked(trained_classifier(), images, suite)
    parts = [images.subset(torch.arange(start, 24, 2)) for start in (0, 1)]
    assert frozenset().union(*(attacked(trained_classifier(), part, suite, batch_size=size) for part in parts)) == whole


def test_fast_interrupted_resumes_with_equal_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, images = [short(Linf(0.2))], toy_images(24, seed=1, split="test")
    whole = attacked(trained_classifier(), images, suite, folder=tmp_path / "whole", batch_size=4)
    appended, left = files.append, [3]

    def dying(*arguments: Any, **more: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return appended(*arguments, **more)

    with monkeypatch.context() as context:
        context.setattr(files, "append", dying)
        with pytest.raises(KeyboardInterrupt):
            attacked(trained_classifier(), images, suite, folder=tmp_path / "cut", batch_size=4)
    assert attacked(trained_classifier(), images, suite, folder=tmp_path / "cut", batch_size=4) == whole
    found = [(r.trial, i) for r in records.read(tmp_path / "cut" / "records.jsonl") for i in r.index]
    assert len(found) == len(set(found)) == 2 * 24 - len(broken(verdicts_clean(images)))


def verdicts_clean(images: ImageDataset) -> dict[int, bool]:
    return verdicts(EvaluatedModel("it", trained_classifier()), images, [])[0]


def test_fast_says_its_cost_and_that_it_is_not_autoattack() -> None:
    (trial,) = fast(Linf("8/255"))
    assert trial.gradients() == 720
    assert trial.forwards() == trial.attack.forwards > 0
    assert "AutoAttack" not in str(trial)
    for part in ("Square", "APGDRotation", "10 classes", "white_box in fp32", "until lost"):
        assert part in str(trial)


def test_fast_that_does_not_fit_is_refused_before_an_attack(tmp_path: Path) -> None:
    images = toy_images(8)
    with pytest.raises(InputError, match="made for 10 classes and the data has 4"):
        ff.evaluate(classifier(), images, fast("Linf:0.1"), folder=tmp_path, allow_weak=True)
    with pytest.raises(InputError, match=r"does not support the threat model Wasserstein"):
        ff.evaluate(classifier(), images, "fast", "Wasserstein:0.1", folder=tmp_path, allow_weak=True)
    assert not list(tmp_path.iterdir())
