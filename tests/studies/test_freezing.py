from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from forefend.models import preprocessors
from forefend.runtime.files import write_versioned
from forefend.studies import catalog
from forefend.studies.costs import Cost
from forefend.studies.measurements import Pipeline
from forefend.studies.networks import Trained
from forefend.studies.output import Found, load
from forefend.studies.table import Cell, outcome
from forefend.studies.tasks import Place, perform, with_needs
from forefend.studies.untrained import Drawing, Transform, trainings_of


def test_a_drawing_shows_the_picture_of_the_class_that_its_classifier_predicts() -> None:
    pictures = torch.rand(3, 1, 2, 2)
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = torch.rand(5, 1, 2, 2)
    shown = Drawing(classifier, pictures, sharpness=1e4)(x)
    assert torch.allclose(shown, pictures[classifier(x).argmax(1)], atol=1e-4)
    assert not [
        name for name, weights in Drawing(classifier, pictures, 1.0).named_parameters() if weights.requires_grad
    ]


def test_a_budget_decides_the_epochs_and_is_part_of_the_key(tmp_path: Path) -> None:
    small = {"recipe": "natural", "data": "digits", "images": 100, "architecture": "mlp"}
    free, paid = Trained(**small, settings={"epochs": 1}), Trained(**small, settings={"epochs": 1}, flops=2e8)  # type: ignore[arg-type]
    assert free.key != paid.key
    place = Place(tmp_path, device="cpu")
    perform(paid, place)
    # forward and both gradients of 64 × 200, 200 × 200 and 200 × 10 weights: 6 operations each, 4 for the first layer
    each = 4 * 64 * 200 + 6 * (200 * 200 + 200 * 10)
    epochs = (paid.folder(place) / "train.jsonl").read_text().splitlines()
    assert len(epochs) == pytest.approx(2e8 / (100 * each), abs=1)


def test_the_cost_of_a_defense_is_what_it_adds_and_what_its_training_computed(tmp_path: Path) -> None:
    place = Place(tmp_path, device="cpu")
    guide = Trained("natural", "digits", 50, "mlp", {"epochs": 1})
    attacking = {"threat": "Linf:0.1", "epochs": 1, "steps": 2}
    defense = Trained("aaa", "digits", 50, "aaa-autoencoder", attacking | {"batch_size": 16}, guides=(guide,))
    cost = Cost(Pipeline(guide, "digits", 20, defense), defense)
    for task in with_needs([cost]).values():
        perform(task, place)
    price = cost.count(place)
    added = preprocessors.build("aaa-autoencoder", channels=1)
    assert price.parameters == sum(parameter.numel() for parameter in added.parameters())
    assert price.gradients == 50 * (1 + 2)
    assert price.milliseconds > 0
    found = outcome(Cell("aaa", "thousand gradients", None, [[cost]], "gradients"), place, {})
    assert (found.ours(), found.n()) == (0.15, None)
    write_versioned(tmp_path / "table.json", asdict(Found("freezing", "t", "smoke", "", "", "unit", "", [found])))
    (tmp_path / "records.jsonl").touch()
    assert load(tmp_path).outcomes == [found]


def test_rows_take_the_same_operations_and_the_control_needs_only_the_robust_classifier() -> None:
    cells = catalog.find("freezing", "fashion").cells_at("cpu")
    tasks = {task.key: task for cell in cells for own in cell.tasks() for task in own.needs()}
    trained = [task for task in tasks.values() if isinstance(task, Trained)]
    assert {task.flops for task in trained if task.recipe != "natural"} == {2e12}
    assert {task.flops for task in trained if task.recipe == "natural"} == {0.0}
    control = next(cell for cell in cells if cell.row.startswith("a robust classifier") and "clean" in cell.column)
    assert {task.title() for task in control.tasks()[0].needs()} == {
        "adversarial-fashion-mnist-fastat",
        "natural-fashion-mnist-fastat",
    }
    assert trainings_of(Transform("jpeg")) == []
