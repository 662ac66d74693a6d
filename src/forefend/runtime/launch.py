"""Launch: more processes of the same command on this machine; several threads waste what they wait for each other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from accelerate.state import PartialState

from forefend.checks import InputError
from forefend.runtime.distributed import leave_group

READY = "FOREFEND_READY"  # in a started process's environment: the file that it makes when it is about to share
PATIENCE = 60.0  # seconds that a process may take to end after all work is done
GRACE = 3.0  # seconds in which one whose partner has failed fails too
Others = list["subprocess.Popen[bytes]"]


def may_start() -> bool:
    """Whether this process is nobody's partner yet, neither `torchrun`'s nor ours."""
    return "WORLD_SIZE" not in os.environ


@contextmanager
def joined(count: int, words: Sequence[str]) -> Iterator[None]:
    """Share what is done within with processes that run the same command; this one is the first of them.

    Whoever comes to `processes()` meets the others there. They end when this one does, however it ends. With a count
    of 1, or where this process was started by another, nothing is started.

    Args:
        count: how many processes there shall be.
        words: the command line, without the program's name.

    Raises:
        InputError: another process failed; with the end of what it said.
    """
    if count < 2 or not may_start():
        yield
        return
    with tempfile.TemporaryDirectory() as place, _first_of(count) as shared, ExitStack() as ends:
        others: Others = []
        ends.callback(_end, others)  # before the first is started
        ends.enter_context(_heard_while_waiting(others))
        for rank in range(1, count):
            others.append(_started(words, shared | _rank(rank), Path(place)))
        _wait_until_ready(others, Path(place))
        try:
            yield
            _wait(others, PATIENCE)
        except Exception as error:  # one whose partner is gone learns it from a broken connection
            _wait(others, GRACE)
            if _failed(others):
                raise InputError(_failure(Path(place))) from error
            raise
        if _failed(others):
            raise InputError(_failure(Path(place)))


def ready() -> None:
    """In a process that another has started: say that the work may begin, and from now on end when the other does.

    To be called before `processes()`, which waits for all; elsewhere it does nothing.
    """
    if READY not in os.environ:
        return

    def until_it_ends() -> None:
        os.read(0, 1)  # nothing ever comes; the end of the first closes it, be it killed
        os._exit(1)

    threading.Thread(target=until_it_ends, daemon=True).start()
    Path(os.environ[READY]).touch()


@contextmanager
def _first_of(count: int) -> Iterator[dict[str, str]]:
    """Make this process, with one thread, the first of several; what the others' environment shares with its own."""
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    before, threads, state = dict(os.environ), torch.get_num_threads(), dict(PartialState._shared_state)
    os.environ.update(shared | _rank(0))
    torch.set_num_threads(1)
    PartialState._shared_state.clear()  # a training in this process may have found itself alone
    try:
        yield shared
    finally:
        os.environ.clear()  # accelerate too leaves words there
        os.environ.update(before)
        torch.set_num_threads(threads)
        leave_group()
        PartialState._shared_state.clear()
        PartialState._shared_state.update(state)


@contextmanager
def _heard_while_waiting(others: Others) -> Iterator[None]:
    """End the others as soon as a signal arrives: while this process waits for them, Python itself does not hear it."""
    here, there = socket.socketpair()
    there.setblocking(False)
    try:
        old = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    except ValueError:  # only the main thread is told of signals
        here.close()
        there.close()
        yield
        return

    def listen() -> None:
        with suppress(OSError):
            while number := here.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    _end(others)

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        there.close()
        here.close()


def _started(words: Sequence[str], environment: dict[str, str], place: Path) -> subprocess.Popen[bytes]:
    rank = environment["RANK"]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), READY: str(place / f"ready-{rank}")}
    with (place / f"said-{rank}").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "forefend", *words],
            env=os.environ | environment | paths,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def _wait_until_ready(others: Others, place: Path) -> None:
    """Wait until all are about to share the work, so that nobody waits for one that never comes."""
    while len(list(place.glob("ready-*"))) < len(others):
        if any(other.poll() is not None for other in others):
            raise InputError(_failure(place))
        time.sleep(0.05)


def _wait(others: Others, patience: float) -> None:
    """Give the others time to end of themselves."""
    until = time.monotonic() + patience
    for other in others:
        with suppress(subprocess.TimeoutExpired):
            other.wait(max(0.0, until - time.monotonic()))


def _failed(others: Others) -> bool:
    """Whether one of those that have ended of themselves has failed."""
    return any(other.poll() for other in others)


def _end(others: Others) -> None:
    """Leave none behind."""
    for other in others:
        with suppress(OSError):
            if other.stdin:
                other.stdin.close()
            if other.poll() is None:
                other.terminate()
    _wait(others, GRACE)
    for other in others:
        if other.poll() is None:
            other.kill()
            other.wait()


def _rank(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def _failure(place: Path) -> str:
    """One sentence, with the last line of whoever said something."""
    said = [path.read_text(errors="replace").strip().splitlines() for path in sorted(place.glob("said-*"))]
    words = next((lines[-1] for lines in said if lines), "it said nothing, as one that ran out of memory")
    return f"A process that shared the work failed ({words}): go on with the same command and --processes 1."
