"""No list of runs shows the numbers of one defense for another."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import evidence_runs
from torch import nn

from forefend.models.defense import Defense
from forefend.report.run_list import ListedRun, list_runs, table


def other_defense() -> Defense:
    """Of the architecture and guide of the run, with other weights."""
    other = evidence_runs.defense()
    nn.init.constant_(next(other.parameters()), 0.01)
    return other


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose evaluation lies in `evaluations/own`."""
    folder = tmp_path_factory.mktemp("made") / "run"
    evidence_runs.make(folder)
    (folder / "evaluations/own").mkdir(parents=True)
    for name in ("summary.json", "evaluation.json", "records.jsonl", "models.json"):
        (folder / name).rename(folder / "evaluations/own" / name)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs/one"))


def listed(run: Path) -> ListedRun:
    (found,) = list_runs(run.parent)
    return found


def test_run_with_its_own_evaluation_has_its_numbers(run: Path) -> None:
    found = listed(run)
    assert (found.state, found.evaluations, found.problem, found.note) == ("evaluated", 1, "", "")
    assert found.best is not None
    assert found.best.clean.defended


def test_evaluation_of_another_defense_gives_no_numbers_and_is_told(run: Path) -> None:
    own = evidence_runs.defense().identity()
    other_defense().save(run)
    found = listed(run)
    assert (found.best, found.evaluations) == (None, 0)
    assert found.problem == (
        f"evaluations/own measured another defense ({own}) than that of this run ({other_defense().identity()}): "
        "it does not count"
    )
    assert f"one: {found.problem}" in table([found])


def test_numbers_are_of_the_own_evaluation_beside_a_copied_one(run: Path) -> None:
    shutil.copytree(run / "evaluations/own", run / "evaluations/copied")
    path = run / "evaluations/copied/evaluation.json"
    own = evidence_runs.defense().identity()
    path.write_text(path.read_text().replace(own, other_defense().identity()))
    found = listed(run)
    assert found.best is not None
    assert (found.best.evaluation.name, found.evaluations) == ("own", 1)
    assert "evaluations/copied measured another defense" in found.problem


def test_numbers_that_cannot_be_compared_say_so(run: Path) -> None:
    (run / "evaluations/own/evaluation.json").unlink()
    found = listed(run)
    assert found.best is not None
    assert (found.state, found.problem) == ("evaluated", "")
    assert found.note.startswith("the numbers of evaluations/own may be of another defense")
    assert f"one: {found.note}" in table([found])


def test_numbers_of_a_run_without_a_defense_say_so(run: Path) -> None:
    (run / "defense.json").unlink()
    assert "this run holds none to compare" in listed(run).note


def test_damaged_weights_give_no_numbers_and_are_not_called_another_defense(run: Path) -> None:
    path = run / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"0")
    found = listed(run)
    assert (found.state, found.best) == ("damaged", None)
    assert "weights.safetensors is damaged, or holds other weights" in found.problem
    assert "another defense" not in found.problem


def test_check_of_another_defense_does_not_count(run: Path) -> None:
    evidence_runs.add(run)
    assert (listed(run).state, listed(run).checks, listed(run).checks_failed) == ("checked", 1, 1)
    path, own = run / "check/check.json", evidence_runs.defense().identity()
    path.write_text(path.read_text().replace(own, "other:1"))
    found = listed(run)
    assert (found.checks, found.checks_failed) == (0, 0)
    assert found.problem == (
        f"check/check.json checked another defense (other:1) than that of this run ({own}): it does not count"
    )


def test_damaged_manifest_is_told(run: Path) -> None:
    (run / "evaluations/own/evaluation.json").write_text('{"about": {"counted": [3]}}')
    found = listed(run)
    assert (found.state, found.best) == ("damaged", None)
    assert "evaluation.json is not of an evaluation" in found.problem
