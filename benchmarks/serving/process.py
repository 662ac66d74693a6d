"""`forefend serve` in a process of its own, whose log is read as it comes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 120  # to start, on a busy machine


class ServerProcess:
    """A server on a free port of this machine, on the CPU.

    Args:
        words: what follows `forefend serve` on the command line.
        folder: the current folder of the process.

    Raises:
        RuntimeError: it did not start.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        command = [sys.executable, "-m", "forefend", "serve", *words, "--port", "0", "--device", "cpu"]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._listening.wait(SECONDS)
        found = [re.search(r'"address": "(http:[^"]+)/"', line) for line in self.lines]
        self.address = next((match[1] for match in found if match), "")
        if not self.address:
            self.__exit__()
            raise RuntimeError(f"the server did not start: {''.join(self.lines)}")

    def log(self) -> list[dict[str, Any]]:
        """Return the JSON lines that were written so far."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def ended(self) -> int:
        """Wait for the end and return the exit status."""
        status = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        return status

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(SECONDS)
        if self.process.stdout:
            self.process.stdout.close()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line)
            if '"listening"' in line:
                self._listening.set()
        self._listening.set()
