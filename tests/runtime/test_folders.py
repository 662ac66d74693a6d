"""One process at a time writes to a folder, whatever is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from forefend.checks import InputError
from forefend.runtime import files
from forefend.runtime.folders import locked
from forefend.runtime.run_folder import Run, start


def python(code: str, *words: str) -> subprocess.Popen[str]:
    """Start a process and wait until it prints a line."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, *words], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
import sys, time
from pathlib import Path
from forefend.runtime.folders import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""
STOP_BEFORE_RENAME = """
import os, sys, time
from pathlib import Path
from forefend.runtime.run_folder import start
def wait(*_):
    print("ready", flush=True)
    time.sleep(60)
os.replace = wait
start(Path(sys.argv[1]), {"recipe": "rtfe"})
"""


def test_locked_folder_refuses_a_second_process_until_kill(tmp_path: Path) -> None:
    process = python(HOLD, str(tmp_path / "run"))
    try:
        with (
            pytest.raises(InputError, match=r"^Another process writes to .*run: wait until it ends"),
            locked(tmp_path / "run"),
        ):
            pytest.fail("two processes hold the folder")
    finally:
        process.kill()
        process.communicate()
    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == []


def test_locked_folder_refuses_another_thread(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        try:
            with locked(tmp_path):
                said.append("held")
        except InputError as error:
            said.append(str(error))

    for _ in range(2):
        with locked(tmp_path):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
    second()
    assert [text.split()[0] for text in said] == ["Another", "Another", "held"]


def test_start_after_kill_while_config_is_written_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = python(STOP_BEFORE_RENAME, str(folder))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (left,) = os.listdir(folder)
    assert left.startswith(".config.json.")
    assert start(folder, {"recipe": "rtfe"}).config == {"recipe": "rtfe"}
    with locked(folder):
        assert os.listdir(folder) == ["config.json"]


@pytest.mark.parametrize("again", [False, True], ids=["deleted", "replaced"])
def test_writes_to_a_deleted_folder_are_refused(tmp_path: Path, again: bool) -> None:
    run = Run(tmp_path / "run")
    with locked(run.folder):
        run.log(step=1)
        shutil.rmtree(run.folder)
        if again:
            run.folder.mkdir()
        for write in (lambda: run.log(step=2), lambda: files.write(run.checkpoint, b"weights")):
            with pytest.raises(InputError, match=r"run was deleted or replaced"):
                write()
    assert run.folder.exists() == again
    assert not again or os.listdir(run.folder) == []


def test_append_to_a_deleted_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run was deleted"):
        Run(tmp_path / "run").log(step=1)
