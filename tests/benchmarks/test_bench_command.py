"""The command `python -m benchmarks.speed`: what it writes, leaves out and refuses."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.command_line import files

from benchmarks.speed import environments
from benchmarks.speed.__main__ import main
from benchmarks.speed.cases import MODELS
from benchmarks.speed.environments import Environments
from benchmarks.speed.interleaving import BenchmarkError
from benchmarks.speed.registry import BENCHMARKS
from benchmarks.speed.results import Point

FIGURE = {"question", "case", "subject", "against", "unit", "ratio", "low", "high", "rounds", "parity", "bar", "missed"}
PARTS = {"about", "machine", "settings", "load", "seconds", "figures", "measured", "absent", "subjects"}
SPEED = Path(environments.__file__).parent


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_bench_memory_writes_figures_machine_and_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split("--quick --benchmarks memory --rounds 2 --out out")) == 0
    assert "MEMORY" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    check_form(found)
    assert found["settings"] == {"quick": True, "rounds": 2, "questions": ["memory"]}
    assert [figure["rounds"] for figure in found["figures"]] == [2, 2]
    assert {row["subject"] for row in found["measured"]} == set(BENCHMARKS["memory"].IMPLEMENTATIONS)


def check_form(found: dict[str, object]) -> None:
    """Check what every bench.json contains."""
    assert set(found) - {"format"} == PARTS
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


def test_committed_bench_json_has_the_same_form() -> None:
    path = Path(__file__).parents[2] / "results" / "bench" / "bench.json"
    found = json.loads(path.read_text())
    check_form(found)
    assert found["settings"]["questions"] == list(BENCHMARKS)
    assert not found["settings"]["quick"]
    assert all(figure["rounds"] >= 5 for figure in found["figures"])
    assert {f["against"] for f in found["figures"]} >= {"torchattacks", "adv-lib", "foolbox", "ART", "AutoAttack"}


BAD = {
    "--benchmarks speed": "'speed'",
    "--benchmarks atack": "did you mean 'attack'?",
    "--rounds 0": "rounds is 0, expected at least 1",
    "--rounds many": "'many'",
    "--out taken": "taken is a file",
    "--quik": "did you mean --quick?",
}


@pytest.mark.parametrize("option", BAD)
def test_bench_bad_option_is_refused_before_measuring(
    here: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "taken").touch()
    assert main(shlex.split(option)) == 2
    message = capsys.readouterr().err
    assert BAD[option] in message
    assert message.startswith("benchmarks.speed: ")
    assert message.count("\n") == 1
    assert files(here) == ["taken"]


def test_bench_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in BENCHMARKS)


def test_process_without_environment_names_the_script(tmp_path: Path) -> None:
    with Environments(tmp_path / "venvs") as processes, pytest.raises(BenchmarkError, match=r"environments.sh .*venvs"):
        processes.process("ART")


def test_baselines_modules_exist_and_every_point_has_one() -> None:
    modules = {path.stem for path in SPEED.glob("*.py")}
    assert {module for module, _ in environments.BASELINES.values()} <= modules
    named = {p.implementation for benchmark in BENCHMARKS.values() for q in (True, False) for p in benchmark.points(q)}
    own = {name for benchmark in BENCHMARKS.values() for name in benchmark.IMPLEMENTATIONS}
    assert named == own | set(environments.BASELINES)


@dataclass(frozen=True)
class Incomplete:
    """A model that misses a file of this name."""

    name: str

    def missing_file(self) -> str:
        return self.name


def test_missing_file_names_the_file_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREFEND_DATA", str(tmp_path))
    missing = environments.missing_file
    assert "chenyaofo" in missing(Point("attack", "PGD-20 on defended resnet20", "ours"), MODELS)
    assert missing(Point("attack", "PGD-20 on random weights", "ours"), MODELS) == ""
    longest = {"net": Incomplete("short"), "defended net": Incomplete("long")}
    assert "there is no long" in missing(Point("attack", "PGD-20 on defended net", "ours"), longest)
    assert missing(Point("growth", "guides 3", "ours"), MODELS) == ""


def test_process_second_request_starts_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started = []

    class FakeProcess:
        def __init__(self, command: list[str], environment: dict[str, str]) -> None:
            started.append(self)

        def close(self) -> None:
            started.remove(self)

    monkeypatch.setattr(environments, "BenchmarkProcess", FakeProcess)
    with Environments(tmp_path) as processes:
        assert processes.process("ours") is processes.process("ours")
        processes.process("ours, fp32")
        assert len(started) == 2
    assert started == []
