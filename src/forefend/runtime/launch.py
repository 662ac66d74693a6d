"""Start further processes of the same command on this machine, which share its work.

torch's elastic launcher does not fit: its agent takes no part in the work, and workers outlive an
agent that is killed.
"""

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
from forefend.runtime.parent import end_with_pipe

READY = "FOREFEND_READY"  # environment variable of a started process: the file that it creates when it is ready
PATIENCE = 60.0  # seconds in which a process must end after all work is done
GRACE = 3.0  # seconds in which a process must end after a failure here
LOST = 20.0  # the same after a broken connection: the process that failed is ending, slowly on a busy machine
Workers = list["subprocess.Popen[bytes]"]


def may_start() -> bool:
    """Whether this process was started neither by `torchrun` nor by `joined`."""
    return "WORLD_SIZE" not in os.environ


def is_started() -> bool:
    """Whether this process was started by `joined`."""
    return READY in os.environ


@contextmanager
def joined(count: int, words: Sequence[str]) -> Iterator[None]:
    """Share the work of the block with processes that run the same command.

    The others join at `process_group()`, and end when this process does, even if it is killed.
    Nothing is started for a count of 1, or in a process that another one has started.

    Args:
        count: the number of processes.
        words: the command line, without the name of the program.

    Raises:
        InputError: another process failed; the message has the last line that it printed.
    """
    if count < 2 or not may_start():
        yield
        return
    workers: Workers = []
    with tempfile.TemporaryDirectory() as name, _rank_0_of(count) as shared, ExitStack() as stack:
        folder = Path(name)
        stack.callback(_end, workers)  # before the first is started
        stack.enter_context(_ended_by_signals(workers))
        for rank in range(1, count):
            workers.append(_started(words, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, folder))
        while len(list(folder.glob("ready-*"))) < len(workers):
            if any(worker.poll() is not None for worker in workers):
                raise InputError(_failure(folder))
            time.sleep(0.05)
        cause = None
        try:
            yield
        except Exception as error:  # the failure of another process shows here as a broken connection
            cause = error
        _wait(workers, _seconds_after(cause))
        if any(worker.poll() for worker in workers):
            raise InputError(_failure(folder)) from cause
        if cause:
            raise cause


def ready() -> None:
    """In a process started by `joined`, signal that the work may begin.

    Call it before `process_group()`, which waits for all processes. Elsewhere it does nothing.
    """
    if is_started():
        Path(os.environ[READY]).touch()


def end_with_first() -> None:
    """In a process started by `joined`, end when the first process does. Call it before any work.

    Elsewhere it does nothing.
    """
    if is_started():
        end_with_pipe()


@contextmanager
def _rank_0_of(count: int) -> Iterator[dict[str, str]]:
    """Make this process rank 0 of several; yield the environment that all share."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    before, threads, state = dict(os.environ), torch.get_num_threads(), dict(PartialState._shared_state)
    os.environ.update(shared | {"RANK": "0", "LOCAL_RANK": "0"})
    torch.set_num_threads(1)
    PartialState._shared_state.clear()  # earlier training in this process may have set it
    try:
        yield shared
    finally:
        os.environ.clear()  # accelerate sets variables too
        os.environ.update(before)
        torch.set_num_threads(threads)
        leave_group()
        PartialState._shared_state.clear()
        PartialState._shared_state.update(state)


@contextmanager
def _ended_by_signals(workers: Workers) -> Iterator[None]:
    """End the workers on SIGINT and SIGTERM, which Python handles only after collective calls."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)

    def listen() -> None:
        with suppress(OSError):
            while number := receiver.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    _end(workers)

    with receiver, sender:
        old = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=listen, daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(old)


def _started(words: Sequence[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    rank = environment["RANK"]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), READY: str(folder / f"ready-{rank}")}
    with (folder / f"stderr-{rank}").open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "forefend", *words],
            env=os.environ | environment | paths,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )


def _wait(workers: Workers, seconds: float) -> None:
    until = time.monotonic() + seconds
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, until - time.monotonic()))


def _end(workers: Workers) -> None:
    for worker in workers:
        with suppress(OSError):
            if worker.stdin:
                worker.stdin.close()
            if worker.poll() is None:
                worker.terminate()
    _wait(workers, GRACE)
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _seconds_after(cause: Exception | None) -> float:
    """Return how long the other processes may take to end; torch raises RuntimeError for a broken connection."""
    if cause is None:
        return PATIENCE
    return LOST if isinstance(cause, RuntimeError) else GRACE


def _failure(folder: Path) -> str:
    printed = [path.read_text(errors="replace").strip().splitlines() for path in sorted(folder.glob("stderr-*"))]
    last = next((lines[-1] for lines in printed if lines), "it printed nothing; it may have run out of memory")
    return f"A process that shared the work failed ({last}): run the same command with --processes 1 to resume."
