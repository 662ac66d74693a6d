"""What a server says was measured is told apart by code: on exactly what it serves, on others, or not known."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from helpers import evidence_runs
from helpers.calls import Calls
from helpers.toy_networks import CLASSES, SIZE, classifier, trained_classifier
from torch import Tensor, nn

from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.models.classifiers.black_box import BlackBox
from forefend.models.defended import Defended
from forefend.models.defense import load
from forefend.report.measured import measured_in
from forefend.serving.info import describe, model_card
from forefend.serving.limits import Limits
from forefend.serving.pipeline import pipeline


class Noisy(nn.Module):
    """Gives other answers for equal images, whatever the seed."""

    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        return torch.rand(len(x), CLASSES, generator=generator)


def evaluated(folder: Path, network: nn.Module) -> Path:
    """A run whose defense was evaluated in front of a classifier called `cnn`."""
    evidence_runs.defense().save(folder)
    model = EvaluatedModel("cnn", Defended(load(folder), network), defended=True)
    evaluate([model], evidence_runs.images(), [], folder=folder / "evaluations/one")
    return folder


def released(run: Path, folder: Path) -> Path:
    defense = load(run)
    defense.save_pretrained(folder, measured=measured_in(defense, run))
    return folder


def told(folder: Path, network: nn.Module) -> set[str]:
    """What a server of this classifier, also called `cnn`, says of the accuracies."""
    made = pipeline(load(folder), network, "cnn", (1, SIZE, SIZE))
    info = describe(made, Limits(), model_card(made.defense, folder), resize=False, folder=folder)
    found = {one["of"] for each in info["measured"] for one in each["accuracies"]}
    assert found <= info["measured_of"].keys()
    return found


def padded() -> nn.Module:
    """The trained classifier with another padding: equal tensors, and another network."""
    network = copy.deepcopy(trained_classifier())
    network[0].padding_mode = "circular"  # type: ignore[index]
    network[0]._reversed_padding_repeated_twice = [1, 1, 1, 1]  # type: ignore[index]
    return network


@pytest.mark.parametrize("release", [False, True])
def test_accuracies_are_of_the_served_classifier_alone(tmp_path: Path, release: bool) -> None:
    folder = evaluated(tmp_path / "run", trained_classifier())
    folder = released(folder, tmp_path / "released") if release else folder
    assert told(folder, copy.deepcopy(trained_classifier())) == {"served"}
    assert told(folder, classifier(seed=3)) == {"other"}
    assert told(folder, padded()) == {"unidentified"}


@pytest.mark.parametrize("release", [False, True])
def test_equal_digests_with_other_answers_are_others(tmp_path: Path, release: bool) -> None:
    own, other = trained_classifier(), classifier(seed=3)
    folder = evaluated(tmp_path / "run", Calls(lambda x: own(x)))
    folder = released(folder, tmp_path / "released") if release else folder
    assert told(folder, Calls(lambda x: own(x))) == {"served"}
    assert told(folder, Calls(lambda x: other(x))) == {"other"}


def test_release_keeps_no_answer_to_images_of_the_set(tmp_path: Path) -> None:
    folder = released(evaluated(tmp_path / "run", trained_classifier()), tmp_path / "released")
    (line,) = json.loads((folder / "models.json").read_text())["models"]
    assert list(line["answers"]) == [f"random 1x{SIZE}x{SIZE} {number}" for number in range(8)]


def test_without_answers_no_classifier_is_identified(tmp_path: Path) -> None:
    folder = evaluated(tmp_path / "run", trained_classifier())
    (folder / "evaluations/one/models.json").unlink()
    assert told(folder, trained_classifier()) == {"unidentified"}


def test_damaged_answers_stop_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = released(evaluated(tmp_path / "run", trained_classifier()), tmp_path / "released")
    (folder / "models.json").write_text('{"models": 3}')
    made = pipeline(evidence_runs.defense(), trained_classifier(), "cnn", (1, SIZE, SIZE))
    card = (folder / "README.md").read_text()
    (found,) = describe(made, Limits(), card, resize=False, folder=folder)["measured"]
    assert {one["of"] for one in found["accuracies"]} == {"unidentified"}
    assert "cannot be identified" in capsys.readouterr().out


def test_card_of_an_older_version_names_no_classifier(tmp_path: Path) -> None:
    folder = released(evaluated(tmp_path / "run", trained_classifier()), tmp_path / "released")
    made = pipeline(evidence_runs.defense(), trained_classifier(), "cnn", (1, SIZE, SIZE))
    lines = (folder / "README.md").read_text().splitlines(keepends=True)
    card = "".join(line for line in lines if line.strip() != "args:" and "pipeline: " not in line)
    (found,) = describe(made, Limits(), card, resize=False, folder=folder)["measured"]
    assert [one["of"] for one in found["accuracies"]] == ["unidentified"]


def test_random_classifier_and_labels_alone_are_not_identified(tmp_path: Path) -> None:
    assert told(evaluated(tmp_path / "random", Noisy()), Noisy()) == {"unidentified"}

    def labels() -> BlackBox:
        return BlackBox(lambda x: x.reshape(len(x), -1)[:, 0].round().astype(int), outputs="labels", classes=CLASSES)

    assert told(evaluated(tmp_path / "labels", labels()), labels()) == {"unidentified"}
