"""A tracker of accelerate that writes what it is told as lines of a file, or fails where it is asked to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker


class ToldTracker(GeneralTracker):
    """Writes a line for each call.

    Args:
        path: the file.
        fails: the calls that raise: `start`, `log`, `log_images`, `finish` or `store_init_configuration`.
    """

    name = "told"
    requires_logging_directory = False
    tracker = None

    def __init__(self, path: Path, fails: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.path, self.fails = path, fails

    def start(self) -> None:
        self._write("start")

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        self._write("store_init_configuration", values=dict(values))

    def log(self, values: Mapping[str, Any], step: int | None = None, **options: Any) -> None:
        self._write("log", values=dict(values), step=step)

    def log_images(self, values: Mapping[str, Any], step: int | None = None, **options: Any) -> None:
        self._write("log_images", shapes={name: list(pictures.shape) for name, pictures in values.items()}, step=step)

    def finish(self) -> None:
        self._write("finish")

    def _write(self, call: str, **more: Any) -> None:
        if call in self.fails:
            raise ConnectionError(f"no server answers\nat {call}")
        with self.path.open("a") as file:
            file.write(json.dumps({"call": call, **more}) + "\n")

    def calls(self, call: str) -> list[dict[str, Any]]:
        """The calls of one name, in order."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in lines if line["call"] == call]

    def steps(self) -> list[int]:
        """The steps that were logged, in order."""
        return [line["step"] for line in self.calls("log")]
