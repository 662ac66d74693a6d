"""Tasks without networks, for the runner: each writes a line to a common log when it is computed."""

from __future__ import annotations

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
        if self.failure == "refused":
            raise InputError("It is refused: do otherwise.")
        if self.failure:
            raise RuntimeError(self.failure)
