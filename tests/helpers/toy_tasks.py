"""Tasks without networks, for the runner: each writes a line to a common log when it is computed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.studies.tasks import Place, Task


@dataclass(frozen=True)
class Toy(Task):
    """A task that needs others, and may fail."""

    name: str
    after: tuple[Toy, ...] = ()
    failure: str = ""

    def title(self) -> str:
        return self.name

    def config(self) -> dict[str, Any]:
        return {"toy": self.name, "after": [task.config() for task in self.after]}

    def needs(self) -> Sequence[Task]:
        return self.after

    def gradients(self, place: Place) -> float:
        return 1.0

    def compute(self, place: Place, folder: Path) -> None:
        with (place.runs.parent / "log").open("a") as log:
            log.write(f"{self.name}\n")
        if self.failure in ("SIGKILL", "SIGUSR2") and not (folder / "begun").exists():
            (folder / "begun").touch()  # the first of two attempts
            os.kill(os.getpid(), signal.Signals[self.failure])
            time.sleep(60)
        if self.failure == "refused":
            raise InputError("It is refused: do otherwise.")
        if self.failure and not (folder / "begun").exists():
            raise RuntimeError(self.failure)
