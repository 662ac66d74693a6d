"""Several processes of one command: the verdicts of one, no process left behind, failures in one sentence."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
import torch
from accelerate.state import PartialState

from forefend.checks import InputError
from forefend.cli import main
from forefend.evaluation import records
from forefend.runtime import launch
from forefend.runtime.distributed import ProcessGroup, process_group
from forefend.runtime.launch import joined

pytestmark = pytest.mark.timeout(60)

WORDS = ["evaluate", "--classifier", "tinyresnet@random", "--data", "digits", "--suite", "quick", "--images", "60"]
WORDS += ["--threat", "Linf:0.05", "--allow-weak-classifier", "--batch-size", "15"]


def verdicts(folder: Path) -> dict[tuple[str, int], bool]:
    """Every verdict by trial and image; each must be recorded once."""
    found: dict[tuple[str, int], bool] = {}
    for record in records.read(folder / "records.jsonl"):
        for index, misclassified in zip(record.index, record.misclassified, strict=True):
            assert (record.trial, index) not in found
            found[record.trial, index] = misclassified
    return found


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine has two cores."""
    monkeypatch.setattr("forefend.evaluation.parallel.available_cores", lambda: 1.5)


@pytest.mark.parametrize("more", [[], ["--precision", "fp32"]], ids=["plain", "prepared"])
def test_two_processes_give_the_verdicts_of_one(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two, this process evaluates half of the images, and every image is recorded."""
    dealt: list[tuple[int, int]] = []
    mine = ProcessGroup.mine

    def seen(self: ProcessGroup, rows: torch.Tensor, size: int) -> torch.Tensor:
        own = mine(self, rows, size)
        dealt.append((len(own), len(rows)))
        return own

    monkeypatch.setattr(ProcessGroup, "mine", seen)
    for name, count in (("one", "1"), ("two", "2")):
        before, threads = dict(os.environ), torch.get_num_threads()
        dealt.clear()
        out = ["--out", str(tmp_path / name), "--runs", str(tmp_path / "runs"), "--processes", count]
        assert main.main([*WORDS, *more, *out]) == 0
        said = capsys.readouterr().out
        assert ("shared by 2 processes" in said) == (name == "two")
        assert "tinyresnet" in said.splitlines()[-2]
        assert dealt[0] == (60 // int(count), 60)
    assert verdicts(tmp_path / "one") == verdicts(tmp_path / "two")
    assert len({index for _, index in verdicts(tmp_path / "two")}) == 60
    assert [path.name for path in (tmp_path / "two").glob("records*")] == ["records.jsonl"]
    assert (dict(os.environ), torch.get_num_threads(), process_group()) == (before, threads, ProcessGroup())


def test_joined_with_count_1_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    with joined(1, ["evaluate"]):
        assert process_group() == ProcessGroup()


def test_joined_under_torchrun_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.subprocess, "Popen", None)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined(4, ["evaluate"]):
        assert os.environ["WORLD_SIZE"] == "1"


def test_joined_reports_a_failure_before_the_work() -> None:
    said = r"failed \(.*nonsense.*\): .*--processes 1"
    with pytest.raises(InputError, match=said), joined(2, ["nonsense"]):
        pytest.fail("the work began without the other")
    assert "WORLD_SIZE" not in os.environ


def partner(monkeypatch: pytest.MonkeyPatch, does: str) -> list[Popen[bytes]]:
    """Replace started processes by one that is ready and then runs this code."""
    began: list[Popen[bytes]] = []
    ready = "import os, signal, time\nfrom forefend.runtime.launch import end_with_first, ready\n"
    ready += "from forefend.runtime.distributed import process_group\nend_with_first()\nready()\n"

    def started(words: list[str], **options: Any) -> Popen[bytes]:
        began.append(Popen([sys.executable, "-c", ready + does], **options))
        return began[-1]

    monkeypatch.setattr(launch.subprocess, "Popen", started)
    return began


def share() -> None:
    """Communicate twice with the other process."""
    with joined(2, ["evaluate"]):
        process_group().wait()
        process_group().all_of({1: 2})


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("process_group().wait(); raise ValueError('no more')", "ValueError: no more"),
        ("process_group().wait(); os.kill(os.getpid(), signal.SIGKILL)", "it printed nothing"),
    ],
)
def test_joined_reports_a_failure_during_the_work(does: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    partner(monkeypatch, does)
    with pytest.raises(InputError, match=words):
        share()


def test_joined_ends_others_when_this_process_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    began = partner(monkeypatch, "time.sleep(60)")
    with pytest.raises(ZeroDivisionError), joined(2, ["evaluate"]):
        raise ZeroDivisionError
    assert began[0].poll() not in (None, 0)


def test_joined_processes_end_when_the_first_is_killed(tmp_path: Path) -> None:
    first = f"""
import os, sys
from pathlib import Path
from forefend.runtime import launch
start = launch.subprocess.Popen
def started(words, **options):
    does = "from forefend.runtime.launch import *; end_with_first(); ready(); time.sleep(60)"
    other = start([sys.executable, "-c", does], **options)
    Path({str(tmp_path / "other")!r}).write_text(str(other.pid))
    return other
launch.subprocess.Popen = started
with launch.joined(2, ["evaluate"]):
    os.kill(os.getpid(), 9)
"""
    assert Popen([sys.executable, "-c", first]).wait() == -9
    other = int((tmp_path / "other").read_text())
    until = time.monotonic() + 10
    while alive(other) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(other)


def alive(number: int) -> bool:
    """Whether a process runs and is not a zombie."""
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_joined_handles_a_signal_while_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    partner(monkeypatch, "process_group().wait(); time.sleep(60)")

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, stop)
    began = time.monotonic()
    try:
        threading.Timer(8.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(KeyboardInterrupt):
            share()
    finally:
        signal.signal(signal.SIGTERM, old)
    assert time.monotonic() - began < 20


def test_joined_after_a_training_in_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    state = PartialState(cpu=True)
    partner(monkeypatch, "process_group().wait()")
    with joined(2, ["evaluate"]):
        assert process_group() == ProcessGroup(0, 2)
        process_group().wait()
    assert PartialState().num_processes == state.num_processes == 1


def test_processes_below_1_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*WORDS, "--processes", "0", "--out", str(tmp_path / "none")]) == 2
    assert "processes" in capsys.readouterr().err


def test_more_processes_than_cores_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*WORDS, "--processes", "3", "--out", str(tmp_path / "none"), "--runs", str(tmp_path)]) == 2
    assert "3 processes on 2 cores: give --processes at most 2" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
