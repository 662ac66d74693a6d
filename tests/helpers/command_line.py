"""Run commands in this process and return their output; train one guide for tests."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forefend.cli.main import main


@dataclass(frozen=True)
class Completed:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def forefend(line: str) -> Completed:
    """Run `forefend LINE` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(shlex.split(line))
        except SystemExit as left:  # --help and --print_config leave through argparse
            code = int(left.code or 0)
    return Completed(code, out.getvalue(), err.getvalue())


def done(line: str) -> str:
    """Run a command that must succeed; return its output."""
    answer = forefend(line)
    assert answer.code == 0, answer.err
    return answer.out


def refused(line: str) -> str:
    """Run a command that must be refused; return the sentence."""
    answer = forefend(line)
    assert answer.code == 2, (answer, line)
    assert answer.err.startswith("forefend: ")
    assert answer.err.count("\n") == 1, answer.err
    assert "Traceback" not in answer.err
    return answer.err.removeprefix("forefend: ").strip()


def files(folder: Path) -> list[str]:
    """The relative paths of everything in a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@contextlib.contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """A folder with the lock that another process would have on it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@cache
def guide() -> Path:
    """The run of a small classifier of digits, trained once for each test process."""
    folder = Path(tempfile.mkdtemp(prefix="forefend-guide-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = folder / "natural-digits-tinyresnet-s0"
    done(f"train natural --classifier tinyresnet --data digits --images 600 --epochs 2 --out {run}")
    return run
