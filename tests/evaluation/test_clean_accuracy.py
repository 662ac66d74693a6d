"""Signs in clean predictions that a model does not work, told before any other number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.toy_networks import toy_images
from torch import Tensor, nn

from forefend.data import ImageDataset, from_tensors
from forefend.evaluation import records, results
from forefend.evaluation.clean_accuracy import CleanPredictions
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites import general
from forefend.models.defended import Defended
from forefend.report import tables
from forefend.threat_models.lp import Linf


def made(predicted: list[int], labels: list[int], classes: int = 4) -> CleanPredictions:
    return CleanPredictions(dict(enumerate(predicted)), dict(enumerate(labels)), tuple(map(str, range(classes))))


LABELS = [0, 1, 2, 3] * 10


@pytest.mark.parametrize(
    ("predicted", "words"),
    [
        (LABELS, []),
        (
            [0] * 40,
            ["25.0% of 40 clean images right, near chance (25.0%)", "class 0 for 40 of 40 clean images, and 10"],
        ),
        ([0] * 37 + [1, 2, 3], ["near chance", "class 0 for 37 of 40"]),
        (LABELS[:20] + [(y + 1) % 4 for y in LABELS[20:]], []),  # 50 %, just twice chance
    ],
)
def test_faults_name_chance_and_one_class(predicted: list[int], words: list[str]) -> None:
    found = made(predicted, LABELS).faults("net")
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def test_faults_name_a_class_that_has_a_name(tmp_path: Path) -> None:
    found = CleanPredictions(dict.fromkeys(range(8), 1), dict(enumerate([0, 1] * 4)), ("cat", "dog")).faults("net")
    assert "predicts class 1 (dog) for 8 of 8 clean images" in found[1]
    images = from_tensors("pets", torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]), classes=("cat", "dog"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    evaluate(network, images, [], folder=tmp_path, allow_weak=True)
    assert results.load(tmp_path).classes == ["cat", "dog"]
    evaluate(network, images.batch(torch.arange(4))[:2], [], folder=tmp_path / "n", allow_weak=True)
    assert "classes" not in (tmp_path / "n/summary.json").read_text()


def test_faults_one_class_of_one_class_data_is_none() -> None:
    assert made([0] * 40, [0] * 39 + [1]).faults("net") == []


@pytest.mark.parametrize(("right", "told"), [(32, False), (31, False), (30, True), (26, True)])
def test_faults_far_below_the_classifier_alone(right: int, told: bool) -> None:
    """39 of 40 alone has the interval from 87.1 %; 31 of 40 is 20 points below, and 30 reach 85.8 %."""
    alone = made([*LABELS[:39], 0], LABELS)
    own = made(LABELS[:right] + [(y + 1) % 4 for y in LABELS[right:]], LABELS)
    share = f"{right / 40:.1%}"
    assert (
        own.faults("net", alone) == [f"net gets {share} of 40 clean images right, its classifier alone 97.5%."] * told
    )


class Rows(nn.Module):
    """Recognizes every class of the toy images by its bright row."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, :4].mean(2)


class Gray(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 + 0 * x


IMAGES = toy_images(40)


def test_evaluate_dead_defense_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(Defended(Gray(), Rows()), IMAGES, general.quick(Linf(0.01)), folder=tmp_path)
    printed = capsys.readouterr().out
    assert printed.index("WARNING: classifier defended gets 25.0%") < printed.index("PGD-20(")
    assert len(found.warnings) == 3
    assert found.warnings[0].startswith("classifier defended gets 25.0% of 40 clean images right, near chance")
    for shown in (str(found), str(tables.cumulative(found))):  # told once, in full
        assert shown.startswith("WARNING: 3 warnings above\nclassifier")
    assert "**Warning:** classifier defended predicts class 0 for 40 of 40" in found.to_markdown()
    assert "its classifier alone 100.0%" in found.warnings[2]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["predictions"] == {"classifier defended": [40, 0, 0, 0]}
    assert results.load(tmp_path).warnings == found.warnings == summary["warnings"]
    read = str(results.load(tmp_path))
    assert [read.count(f"WARNING: {warning}") for warning in found.warnings] == [1, 1, 1]


def test_evaluate_working_models_have_no_warning(tmp_path: Path) -> None:
    rows = Rows()
    models = [EvaluatedModel("rows", rows), EvaluatedModel("rows", Defended(nn.Identity(), rows), defended=True)]
    found = evaluate(models, IMAGES, [], folder=tmp_path)
    assert found.warnings == []
    assert not str(found).startswith("WARNING")
    assert found.predictions == {"rows": [10] * 4, "rows defended": [10] * 4}


def test_evaluate_resumed_has_the_same_predictions(tmp_path: Path) -> None:
    some: ImageDataset = IMAGES.subset(torch.arange(15))
    evaluate(Rows(), some, [], folder=tmp_path)
    whole = evaluate(Rows(), IMAGES, [], folder=tmp_path)
    assert [len(line.predicted) for line in records.read(tmp_path / "records.jsonl")] == [15, 25]
    assert whole.predictions == evaluate(Rows(), IMAGES, []).predictions == {"classifier": [10] * 4}
