"""Records: what each trial did to each image, appended to disk as it happens, and the folder of a run.

A record is one line of JSON; a line cut short by a crash is dropped and measured again. Everything else is written
beside its place and renamed into it, so that a file is whole or absent. No torch here: records can be read anywhere.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from .checks import InputError


@dataclass(frozen=True)
class Record:
    """What one trial did to one batch of images.

    Args:
        subject: key of what was judged: the fingerprints of the classifier and its defence, and the data.
        trial: identity of the attack, its threat model and what it sees; `none` for clean images.
        seed: the evaluation's seed.
        index: dataset index of each image.
        lost: whether each image is misclassified at the end.
        images: a digest of each image and its label, so that a verdict is not taken for another image's; a record
            without them can be recounted, not gone on from.
    """

    subject: str
    trial: str
    seed: int
    index: list[int]
    lost: list[bool]
    images: list[str] = field(default_factory=list)


def append(path: Path, *records: Any) -> None:
    """Add a line for each record, a dataclass of plain values, and hand them to the operating system."""
    with path.open("ab") as file:
        file.write(b"".join(map(line_of, records)))


def line_of(record: Any) -> bytes:
    """A record, a dataclass of plain values, as it stands in its file."""
    return (json.dumps(asdict(record), separators=(",", ":")) + "\n").encode()


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that is appended to; none when it does not exist.

    A last line without its end, as kill -9 leaves it, is cut from the file so that the next append starts a line.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("r+b") as file:
            file.truncate(whole)
    return text[:whole].splitlines()


def read(path: Path) -> list[Record]:
    """All records in `path`, oldest first; none when it does not exist. A line that was cut short is dropped.

    Raises:
        InputError: a whole line is not a record.
    """
    return [_record(path, number, line) for number, line in enumerate(whole_lines(path), start=1)]


def part(folder: Path, rank: int) -> Path:
    """The file that one of several processes appends to; process 0 has `records.jsonl` itself."""
    return folder / (f"records-{rank}.jsonl" if rank else "records.jsonl")


def gather(folder: Path) -> None:
    """Put what several processes recorded into `records.jsonl`; a line that a crash leaves twice is one verdict."""
    for path in sorted(folder.glob("records-*.jsonl")):
        append(part(folder, 0), *read(path))
        path.unlink()


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = Record(**json.loads(line))
        if len(record.index) != len(record.lost):
            raise ValueError
        return record
    except (ValueError, TypeError):
        raise InputError(
            f"Line {number} of {path} is no record: the file was edited or damaged; delete it to measure again."
        ) from None


def write(path: Path, content: bytes) -> None:
    """Write `content` beside `path` and rename it into place; whatever stops it leaves the old file whole."""
    make(path.parent)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def make(folder: Path) -> None:
    """Make the folder where there is none.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): choose another --out.") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no {path}: check the folder's name.") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): restore it or delete it.") from None


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
            return dict(read_json(self.folder / "config.json")["config"].items())
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
    make(run.folder)
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
        write_json(folder / "config.json", {"config": config, "about": about()})
    elif dict(run.config) != config:
        write_json(folder / "config.json", {**read_json(folder / "config.json"), "config": config})
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


def about() -> dict[str, Any]:
    """Who made a file: versions, machine, command and time, for the reader of a record."""
    versions = {name: _version(name) for name in ("forefend", "torch", "numpy", "accelerate")}
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "command": " ".join(["forefend", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str:
    """A package's version; a package that was copied rather than installed has none to tell."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
