"""A task: one training or one measurement, kept in a folder named by a digest of everything that it depends on."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from forefend import data
from forefend.data import ImageDataset, sample
from forefend.runtime.files import content_digest, folder_name, provenance, read_versioned, write_versioned
from forefend.runtime.folders import locked

RECORD = "task.json"  # written last: a folder with it is finished


@dataclass(frozen=True)
class Place:
    """Where tasks keep their results and find their data.

    Args:
        runs: the folder of all tasks.
        data_dir: the folder of the published data sets; None for FOREFEND_DATA.
        device: `cpu` or `cuda`; None for the fastest one available.
    """

    runs: Path
    data_dir: Path | None = None
    device: str | None = None

    def images(self, name: str, split: str, count: int | None = None, seed: int = 0) -> ImageDataset:
        """Load a split, or a stratified sample of it."""
        images = data.load(name, split, self.data_dir)
        return images if count is None else sample(images, count, seed)


class Task(ABC):
    """One training or one measurement: plain values, so that any process or machine can perform it."""

    cpus: ClassVar[int] = 1
    gpus: ClassVar[int] = 0

    @abstractmethod
    def title(self) -> str:
        """What it does, in a few words that also begin the name of its folder."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON values."""

    @abstractmethod
    def needs(self) -> Sequence[Task]:
        """The tasks whose results this one reads."""

    @abstractmethod
    def gradients(self, place: Place) -> float:
        """How many gradients of one image it computes, about."""

    @abstractmethod
    def compute(self, place: Place, folder: Path) -> None:
        """Compute the result in the folder, or resume there."""

    @cached_property
    def key(self) -> str:
        """The digest of the configuration."""
        return content_digest(self.config())

    def folder(self, place: Place) -> Path:
        """The folder of this task; equal configurations share it."""
        return place.runs / folder_name(f"{self.title()}-{self.key}")

    def seconds(self, place: Place) -> float | None:
        """How long it took when it was last computed; None for a task that is not finished."""
        record = self.folder(place) / RECORD
        return float(read_versioned(record)["seconds"]) if record.exists() else None


def perform(task: Task, place: Place) -> None:
    """Compute the result of a task whose needs are finished; a finished one is not computed again.

    Raises:
        InputError: another process computes it, or it cannot be computed with these settings.
        KeyboardInterrupt: it was interrupted; it resumes when it is performed again.
    """
    folder = task.folder(place)
    if (folder / RECORD).exists():
        return
    with locked(folder):
        started = time.monotonic()
        task.compute(place, folder)
        seconds = round(time.monotonic() - started, 1)
        write_versioned(folder / RECORD, {"task": task.config(), "seconds": seconds, "about": provenance()})


def with_needs(tasks: Sequence[Task]) -> dict[str, Task]:
    """Return tasks and all that they need, by key, each after its needs."""
    found: dict[str, Task] = {}

    def visit(task: Task) -> None:
        if task.key not in found:
            for need in task.needs():
                visit(need)
            found[task.key] = task

    for task in tasks:
        visit(task)
    return found


def as_json(value: Any) -> Any:
    """Return mappings, sequences and tasks as JSON values."""
    if isinstance(value, Mapping):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value.config() if hasattr(value, "config") else value
