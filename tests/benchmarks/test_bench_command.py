"""`forefend bench`: what it writes, what it says it left out, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.command_line import done, files, refused

from benchmarks.speed import environments
from benchmarks.speed.cases import TARGETS
from benchmarks.speed.environments import Hosts
from benchmarks.speed.interleaving import BenchmarkError
from benchmarks.speed.registry import BENCHMARKS
from benchmarks.speed.results import Point
from forefend.cli import main

FIGURE = {"question", "case", "subject", "against", "unit", "ratio", "low", "high", "rounds", "parity", "bar", "missed"}

PARTS = {"about", "machine", "settings", "load", "seconds", "figures", "measured", "absent", "subjects"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and a door that has the verb."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(main.COMMANDS, "bench", ("forefend.cli.bench", ""))
    return tmp_path


def test_it_writes_figures_with_the_machine_and_its_load(tmp_path: Path) -> None:
    said = done("bench --quick --questions memory --rounds 2 --out out")
    assert "MEMORY" in said
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    check_form(found)
    assert found["settings"] == {"quick": True, "rounds": 2, "questions": ["memory"]}
    assert [figure["rounds"] for figure in found["figures"]] == [2, 2]
    assert {row["subject"] for row in found["measured"]} == set(BENCHMARKS["memory"].SUBJECTS)


def check_form(found: dict[str, object]) -> None:
    """What every bench.json holds."""
    assert {"about", "machine", "settings", "load", "seconds", "figures", "measured", "absent", "subjects"} == set(
        found
    )
    figures, load, machine = found["figures"], found["load"], found["machine"]
    assert isinstance(figures, list)
    assert isinstance(load, dict)
    assert isinstance(machine, dict)
    assert figures
    for figure in figures:
        assert set(figure) == FIGURE
        assert figure["low"] <= figure["ratio"] <= figure["high"]
        assert figure["missed"] == (figure["bar"] is not None and figure["ratio"] < figure["bar"])
    assert {"processor", "cores", "system"} <= set(machine)
    assert all(len(averages) == 3 for averages in load.values())


def test_the_committed_figures_have_that_form() -> None:
    path = Path(__file__).parents[2] / "results" / "bench" / "bench.json"
    found = json.loads(path.read_text())
    check_form(found)
    assert found["settings"]["questions"] == list(BENCHMARKS)
    assert not found["settings"]["quick"]
    assert all(figure["rounds"] >= 5 for figure in found["figures"])
    assert {f["against"] for f in found["figures"]} >= {"torchattacks", "adv-lib", "foolbox", "ART", "AutoAttack"}


BAD = {
    "--questions speed": "There is no question called 'speed'",
    "--questions atack": "did you mean 'attack'?",
    "--rounds 0": "rounds is 0, expected at least 1",
    "--rounds many": "'many' does not suit --rounds",
    "--out taken": "taken is a file, expected a folder",
    "--quik": "did you mean --quick?",
}


@pytest.mark.parametrize("option", BAD)
def test_bad_options_are_refused_before_anything_is_measured(here: Path, option: str) -> None:
    (here / "taken").touch()
    assert BAD[option] in refused(f"bench {option}")
    assert files(here) == ["taken"]


def test_help_says_what_can_be_measured() -> None:
    assert all(name in " ".join(done("bench --help").split()) for name in BENCHMARKS)


def test_a_peer_without_an_environment_is_told_the_line_that_makes_it(tmp_path: Path) -> None:
    with Hosts(tmp_path / "venvs") as there, pytest.raises(BenchmarkError, match=r"environments.sh .*venvs makes it"):
        there.subject("ART")


def test_an_installed_package_has_no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "BENCHMARKS", tmp_path)
    with Hosts(tmp_path) as there, pytest.raises(BenchmarkError, match="source tree alone"):
        there.subject("foolbox")


def test_peers_modules_are_there() -> None:
    assert {module for module, _ in environments.PEERS.values()} <= {
        path.stem for path in environments.BENCHMARKS.glob("*.py")
    }
    named = {point.subject for question in BENCHMARKS.values() for q in (True, False) for point in question.points(q)}
    own = {subject for question in BENCHMARKS.values() for subject in question.SUBJECTS}
    assert named == own | set(environments.PEERS)


def test_a_point_whose_files_are_missing_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREFEND_DATA", str(tmp_path))
    assert "chenyaofo" in environments.lacks(Point("attack", "PGD-20 on defended resnet20", "ours"), TARGETS)
    assert environments.lacks(Point("attack", "PGD-20 on random weights", "ours"), TARGETS) == ""
    longest = {"net": Lacking("short"), "defended net": Lacking("long")}
    assert "there is no long" in environments.lacks(Point("attack", "PGD-20 on defended net", "ours"), longest)
    assert environments.lacks(Point("growth", "guides 3", "ours"), TARGETS) == ""


@dataclass(frozen=True)
class Lacking:
    """A target that lacks a file of this name."""

    name: str

    def lacks(self) -> str:
        return self.name


def test_a_process_is_started_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []

    class Quiet:
        def __init__(self, command: list[str], environment: dict[str, str]) -> None:
            started.append(self)

        def close(self) -> None:
            started.remove(self)

    monkeypatch.setattr(environments, "Subject", Quiet)
    with Hosts(tmp_path) as there:
        assert there.subject("ours") is there.subject("ours")
        there.subject("ours, fp32")
        assert len(started) == 2
    assert started == []
