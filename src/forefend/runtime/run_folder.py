"""The folder of a training run. It imports no torch, so that records can be read anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.runtime.files import append_lines, complete_lines, provenance, read_versioned, write, write_versioned
from forefend.runtime.folders import check_in_place, is_temporary, make_folder


@dataclass(frozen=True)
class Run:
    """The folder of one training run; its name is the id of the run."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        """The file to resume from."""
        return self.folder / "checkpoint.safetensors"

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration that the run was started with; an InputError if there is none."""
        try:
            return dict(read_versioned(self.folder / "config.json")["config"].items())
        except (KeyError, TypeError, AttributeError):
            raise InputError(
                f"{self.folder}/config.json is no configuration of a run: choose another folder."
            ) from None

    def log(self, **values: Any) -> None:
        """Append a line to the training log."""
        append_lines(self.folder / "train.jsonl", (json.dumps(values) + "\n").encode())

    def rewind(self, step: int) -> None:
        """Remove the lines of the log after the step of a checkpoint, and unreadable ones.

        A run killed between writing the log and the checkpoint repeats these steps when it resumes.
        """
        path = self.folder / "train.jsonl"
        lines = complete_lines(path)
        steps = [_step_of(line) for line in lines]
        if unreadable := steps.count(-1):
            print(f"{path}: {unreadable} unreadable lines are removed; weights do not depend on them.", flush=True)
        kept = [line + b"\n" for line, reached in zip(lines, steps, strict=True) if 0 <= reached <= step]
        if path.exists() and b"".join(kept) != path.read_bytes():
            write(path, b"".join(kept))


def _step_of(line: bytes) -> int:
    """Return the step of a line of the log, -1 if it is not one."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return -1


def run_in(folder: Run | str | Path) -> Run:
    """Return the run in a folder, which is created if it does not exist."""
    run = folder if isinstance(folder, Run) else Run(Path(folder))
    make_folder(run.folder)
    return run


def start(folder: Path, config: Mapping[str, Any], *, may_change: Sequence[str] = ()) -> Run:
    """Start a run in a folder, or resume the run with the same configuration there.

    A key in `may_change` may have a new value, which is stored.
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
    """Refuse a folder of other files or of a run whose configuration differs outside `but`."""
    if (folder / "config.json").exists():
        both = (Run(folder).config, json.loads(json.dumps(config)))
        check_same(str(folder), *({key: value for key, value in one.items() if key not in but} for one in both))
    elif folder.is_file() or (folder.exists() and not all(map(is_temporary, folder.iterdir()))):
        raise InputError(f"{folder} holds files but no run: choose an empty or new folder.")


def check_same(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to resume `place` with a configuration that differs from `old`.

    A key that one of them lacks is None there: an option that is new since, and off.
    """
    for key in sorted(old.keys() | new.keys()):
        was, now = old.get(key), new.get(key)
        if was == now:
            continue
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            check_same(place, was, now)
            continue
        raise InputError(
            f"{place} belongs to another configuration ({key} was {was!r}, now {now!r}): choose another folder, "
            "or repeat the old options to resume it."
        )


@contextmanager
def removed_if_refused(run: Run) -> Iterator[None]:
    """Remove the config of a training that is refused before its first checkpoint, and a folder left empty."""
    try:
        yield
    except InputError:
        with suppress(InputError):
            check_in_place(run.folder)  # if it was replaced, the config there is that of another training
            if not run.checkpoint.exists():
                (run.folder / "config.json").unlink(missing_ok=True)
                if not any(run.folder.iterdir()):
                    run.folder.rmdir()
        raise
