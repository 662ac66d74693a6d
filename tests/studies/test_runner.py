from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.toy_tasks import Toy

from forefend.studies import catalog, workers
from forefend.studies.reproduction import reproduce
from forefend.studies.runner import perform_all
from forefend.studies.tasks import Place, with_needs
from forefend.studies.workers import Workers

GUIDE = Toy("guide")
DEFENSE = Toy("defense", (GUIDE,))
ATTACKS = [Toy("pgd", (GUIDE, DEFENSE)), Toy("clean", (DEFENSE,))]


@pytest.fixture(autouse=True)
def workers_find_the_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes of Ray and Slurm import `helpers`, which pytest finds by its own setting."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )


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
    failures = perform_all(tasks, place, workers.processes(2) if processes > 1 else workers.one_by_one, processes)
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


def ray() -> Workers:
    pytest.importorskip("ray")
    return workers.on_ray()


def slurm(place: Place) -> Workers:
    pytest.importorskip("submitit")
    return workers.on_slurm(place.runs / "slurm", "local")


@pytest.mark.slow  # Ray takes half a minute to start
def test_ray_repeats_a_task_whose_worker_was_killed(place: Place) -> None:
    killed, bad = Toy("killed", (GUIDE,), failure="SIGKILL"), Toy("bad", failure="refused")
    failures = perform_all([*ATTACKS, Toy("last", (killed,)), bad], place, ray(), None)
    assert failures == {bad.key: "It is refused: do otherwise."}
    done = log(place)
    assert sorted(done) == ["bad", "clean", "defense", "guide", "killed", "killed", "last", "pgd"]
    assert done.index("guide") < done.index("defense") < min(done.index("pgd"), done.index("clean"))


@pytest.mark.slow  # each job starts an interpreter and torch
def test_a_preempted_slurm_job_is_queued_again(place: Place) -> None:
    failures = perform_all([Toy("preempted", (GUIDE,), failure="SIGUSR2")], place, slurm(place), None)
    assert failures == {}
    assert log(place) == ["guide", "preempted", "preempted"]


@pytest.mark.slow
def test_a_study_on_ray_finds_what_it_finds_here(place: Place) -> None:
    table, only = catalog.find("transfer", "table-1"), ["pgd→pgd 18 / BB-PGD"]
    runs = {name: Place(place.runs / name, device="cpu") for name in ("here", "ray")}
    reproduce("transfer", table, "smoke", runs["here"], place.runs / "of here", only=only)
    reproduce("transfer", table, "smoke", runs["ray"], place.runs / "of ray", only=only, workers=ray(), at_once=None)
    for file in ("table.md", "records.jsonl"):
        assert (place.runs / "of here" / file).read_text() == (place.runs / "of ray" / file).read_text()
