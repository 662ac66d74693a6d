"""Several processes of one command: the same verdicts as one, nothing left behind, and a failure said in a sentence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from forefend import cli, launch, records
from forefend.checks import InputError
from forefend.launch import joined
from forefend.processes import Processes, processes

WORDS = ["evaluate", "--classifier", "tinyresnet@random", "--data", "digits", "--suite", "quick", "--images", "60"]
WORDS += ["--threat", "Linf:0.05", "--allow-weak-classifier", "--batch-size", "15"]


def lost(folder: Path) -> dict[tuple[str, int], bool]:
    """Every verdict, by trial and image, each found once."""
    found: dict[tuple[str, int], bool] = {}
    for record in records.read(records.part(folder, 0)):
        for index, gone in zip(record.index, record.lost, strict=True):
            assert (record.trial, index) not in found
            found[record.trial, index] = gone
    return found


def test_two_processes_give_the_verdicts_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, count in (("one", "1"), ("two", "2")):
        before, threads = dict(os.environ), torch.get_num_threads()
        out = ["--out", str(tmp_path / name), "--runs", str(tmp_path / "runs"), "--processes", count]
        assert cli.main([*WORDS, *out]) == 0
        said = capsys.readouterr().out
        assert ("shared by 2 processes" in said) == (name == "two")
        assert "tinyresnet" in said.splitlines()[-2]
    assert lost(tmp_path / "one") == lost(tmp_path / "two") != {}
    assert [path.name for path in (tmp_path / "two").glob("records*")] == ["records.jsonl"]
    assert (dict(os.environ), torch.get_num_threads(), processes()) == (before, threads, Processes())


def test_the_others_take_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is dealt half of the images, and yet every image is judged."""
    dealt: list[tuple[int, int]] = []
    mine = Processes.mine

    def seen(self: Processes, rows: torch.Tensor, size: int) -> torch.Tensor:
        own = mine(self, rows, size)
        dealt.append((len(own), len(rows)))
        return own

    monkeypatch.setattr(Processes, "mine", seen)
    out = ["--out", str(tmp_path / "two"), "--runs", str(tmp_path / "runs"), "--processes", "2"]
    assert cli.main([*WORDS, *out]) == 0
    assert dealt[0] == (30, 60)
    assert len({index for _, index in lost(tmp_path / "two")}) == 60


def test_one_process_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    with joined(1, ["evaluate"]):
        assert processes() == Processes()


def test_whoever_was_started_by_torchrun_starts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined(4, ["evaluate"]):
        assert os.environ["WORLD_SIZE"] == "1"


def test_a_process_that_fails_is_told_of_in_its_own_words() -> None:
    said = r"failed \(.*nonsense.*\): go on with the same command and --processes 1"
    with pytest.raises(InputError, match=said), joined(2, ["nonsense"]):
        pass
    assert "WORLD_SIZE" not in os.environ


def test_what_fails_here_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[launch.subprocess.Popen[bytes]] = []
    start = launch.subprocess.Popen

    def sleeping(*arguments: object, **options: object) -> launch.subprocess.Popen[bytes]:
        began.append(start([sys.executable, "-c", "import time; time.sleep(60)"]))
        return began[0]

    monkeypatch.setattr(launch.subprocess, "Popen", sleeping)
    with pytest.raises(ZeroDivisionError), joined(2, ["evaluate"]):
        raise ZeroDivisionError
    assert began[0].poll() not in (None, 0)


def test_a_number_of_processes_below_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*WORDS, "--processes", "0", "--out", str(tmp_path / "none")]) == 2
    assert "processes" in capsys.readouterr().err
