"""Records: what each trial did to each image, appended to disk as it happens, and the folder of a run.

A record is one line of JSON; a line cut short by a crash is dropped and measured again. Everything else is written
beside its place and renamed into it, so that a file is whole or absent. No torch here: records can be read anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.runtime.files import make_folder, provenance, read_versioned, write, write_versioned


@dataclass(frozen=True)
class Run:
    """The folder of one training run: config, log, checkpoint, weights, evaluations.

    Args:
        folder: where it lies; its name is the run's id.
    """

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """Everything needed to go on."""
        return self.folder / "checkpoint.safetensors"

    @property
    def config(self) -> Mapping[str, Any]:
        """What the run was started with.

        Raises:
            InputError: the folder is not a run.
        """
        try:
            return dict(read_versioned(self.folder / "config.json")["config"].items())
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{self.folder}/config.json is not a run's: choose another folder.") from None

    def log(self, **values: Any) -> None:
        """Append one line to the run's training log."""
        with (self.folder / "train.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")

    def rewind(self, step: int) -> None:
        """Drop what the training log says of steps after `step`: a kill may fall between the log and the checkpoint.

        Args:
            step: where training goes on, by the checkpoint.
        """
        path = self.folder / "train.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            write(path, "".join(kept).encode())


def run_in(folder: Run | str | Path) -> Run:
    """The run in a folder, which is made if need be.

    Raises:
        InputError: it cannot be made.
    """
    run = folder if isinstance(folder, Run) else Run(Path(folder))
    make_folder(run.folder)
    return run


def start(folder: Path, config: Mapping[str, Any], *, may_change: Sequence[str] = ()) -> Run:
    """The run in `folder`: a new one, or the one that was started there with the same configuration.

    Args:
        folder: where the run lies, or shall lie.
        config: what it is started with, JSON values.
        may_change: keys whose value may be another when a run goes on; the new one is kept.

    Raises:
        InputError: the folder belongs to another configuration, or holds something that is no run.
    """
    run = Run(folder)
    config = json.loads(json.dumps(config))
    check_free(folder, config, but=may_change)
    if not (folder / "config.json").exists():
        write_versioned(folder / "config.json", {"config": config, "about": provenance()})
    elif dict(run.config) != config:
        write_versioned(folder / "config.json", {**read_versioned(folder / "config.json"), "config": config})
    return run


def check_free(folder: Path, config: Mapping[str, Any], *, but: Sequence[str] = ()) -> None:
    """Refuse a folder that another run, or something else, has taken.

    Args:
        folder: where a run shall be started, or go on.
        config: what it is started with, JSON values.
        but: keys that are not compared.

    Raises:
        InputError: the folder belongs to another configuration, or holds something that is no run.
    """
    if (folder / "config.json").exists():
        both = (Run(folder).config, json.loads(json.dumps(config)))
        check_same(str(folder), *({key: value for key, value in one.items() if key not in but} for one in both))
    elif folder.is_file() or (folder.exists() and any(folder.iterdir())):
        raise InputError(f"{folder} holds files but no run: choose an empty or new folder with --out.")


def check_same(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to go on with what was begun in another way.

    Args:
        place: what was begun, for the message.
        old: how it was begun, JSON values.
        new: how it would go on.

    Raises:
        InputError: they differ; the first difference is named.
    """
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            check_same(place, was, now)
        raise InputError(
            f"{place} belongs to another configuration ({key} was {was!r}, now {now!r}): choose another folder "
            "(--out), or repeat the old options to go on with it."
        )
