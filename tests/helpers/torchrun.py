"""Torchrun: a script in two processes, and what it checks of itself there."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path

import torch


def in_two_processes(script: str, *words: str) -> None:
    """Run a script of this folder, or of one below, twice at once; it must succeed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    done = subprocess.run([*command, script, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def fail_unless_parted() -> None:
    """End with status 3 if, when all else that was to run at exit has run, this process is in a group still.

    To be called first of all: what was registered last runs first.
    """
    atexit.register(_check)


def _check() -> None:
    if torch.distributed.is_initialized():
        print("still in a group of processes at exit", flush=True)
        os._exit(3)
