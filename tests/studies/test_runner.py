from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.toy_tasks import Toy

from forefend.studies.runner import perform_all
from forefend.studies.tasks import Place, with_needs

GUIDE = Toy("guide")
DEFENSE = Toy("defense", (GUIDE,))
ATTACKS = [Toy("pgd", (GUIDE, DEFENSE)), Toy("clean", (DEFENSE,))]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "runs")


def log(place: Place) -> list[str]:
    return (place.runs.parent / "log").read_text().splitlines()


def test_needs_come_before_what_needs_them_and_once() -> None:
    assert [task.title() for task in with_needs(ATTACKS).values()] == ["guide", "defense", "pgd", "clean"]


def test_each_task_is_performed_once_after_its_needs(place: Place) -> None:
    assert perform_all(ATTACKS, place) == {}
    done = log(place)
    assert sorted(done) == ["clean", "defense", "guide", "pgd"]
    assert done[:2] == ["guide", "defense"]
    assert perform_all([*ATTACKS, Toy("more", (GUIDE,))], place) == {}
    assert log(place)[4:] == ["more"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_stops_only_what_needs_it(place: Place, processes: int) -> None:
    bad = Toy("bad", failure="refused")
    tasks = [Toy("behind", (bad,)), Toy("broken", failure="no gradient"), Toy("good", (Toy("first"),))]
    failures = perform_all(tasks, place, processes)
    assert failures == {
        bad.key: "It is refused: do otherwise.",
        tasks[0].key: "bad failed: It is refused: do otherwise.",
        tasks[1].key: "RuntimeError: no gradient",
    }
    assert tasks[2].seconds(place) is not None
    assert tasks[0].seconds(place) is None
    assert perform_all([replace(bad, failure="")], place) == {}


def test_a_task_interrupted_before_its_record_is_performed_again(place: Place) -> None:
    perform_all([GUIDE], place)
    (GUIDE.folder(place) / "task.json").unlink()
    perform_all([GUIDE], place)
    assert log(place) == ["guide", "guide"]
