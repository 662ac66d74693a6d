"""Launch: more processes of the same command on this machine; several threads waste what they wait for each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import torch
from accelerate.state import PartialState

from .checks import InputError

PATIENCE = 30.0  # seconds that a process may take to end after the others


@contextmanager
def joined(count: int, words: Sequence[str]) -> Iterator[None]:
    """Share what is done within with processes that run the same command; this one is the first of them.

    Whoever comes to `processes()` meets the others there. With a count of 1, or where `torchrun` has already started
    several, nothing is started.

    Args:
        count: how many processes there shall be.
        words: the command line, without the program's name.

    Raises:
        InputError: another process failed; with the end of what it said.
    """
    if count < 2 or "WORLD_SIZE" in os.environ:
        yield
        return
    with tempfile.TemporaryFile() as said, _first_of(count) as shared:
        others = [_started(words, shared | _rank(rank), said) for rank in range(1, count)]
        done = threading.Event()
        threading.Thread(target=_watch, args=(others, done, said), daemon=True).start()
        patience = 0.0
        try:
            yield
            patience = PATIENCE
        finally:
            done.set()
            failed = _ended(others, patience)
        if failed:
            raise InputError(_failure(said))


def _watch(others: Sequence[subprocess.Popen[bytes]], done: threading.Event, said: IO[bytes]) -> None:
    """End this process if another has failed and this one waits for it in vain, where no signal would reach it."""
    while not done.wait(1.0):
        if any(other.poll() for other in others) and not done.wait(PATIENCE):
            print(f"forefend: {_failure(said)}", file=sys.stderr, flush=True)
            _ended(others, 0.0)
            os._exit(1)


@contextmanager
def _first_of(count: int) -> Iterator[dict[str, str]]:
    """Make this process, with one thread, the first of several; what the others' environment shares with its own."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    before, threads = dict(os.environ), torch.get_num_threads()
    os.environ.update(shared | _rank(0))
    torch.set_num_threads(1)
    try:
        yield shared
    finally:
        os.environ.clear()  # accelerate too leaves words there
        os.environ.update(before)
        torch.set_num_threads(threads)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        PartialState._reset_state()


def _rank(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _started(words: Sequence[str], environment: dict[str, str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "forefend", *words],
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
    )


def _ended(others: Sequence[subprocess.Popen[bytes]], patience: float) -> bool:
    """Wait for the others, then end those that go on; whether one has failed."""
    for other in others:
        try:
            other.wait(patience)
        except subprocess.TimeoutExpired:
            other.terminate()
            try:
                other.wait(5)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
    return any(other.returncode for other in others)


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def _failure(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode(errors="replace").strip().splitlines()
    words = lines[-1] if lines else "it said nothing, as one that ran out of memory"
    return f"A process that shared the work failed ({words}): go on with the same command and --processes 1."
