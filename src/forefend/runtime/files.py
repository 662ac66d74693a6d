"""Atomic writes, appended lines, and the format number of JSON files."""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from forefend.checks import InputError

FORMAT = 1  # of every JSON file and checkpoint; a change that older versions cannot read raises it


def append(path: Path, *records: Any) -> None:
    """Append a line for each record, a dataclass of plain values."""
    with path.open("ab") as file:
        file.write(b"".join(map(json_line, records)))


def json_line(record: Any) -> bytes:
    """Return the line of a record, a dataclass of plain values."""
    return (json.dumps(asdict(record), separators=(",", ":")) + "\n").encode()


def complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a file of records, an empty list if it does not exist.

    An incomplete last line, as after kill -9, is cut from the file, so that the next append starts
    a line.
    """
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        with path.open("r+b") as file:
            file.truncate(whole)
    return text[:whole].splitlines()


def write(path: Path, content: bytes) -> None:
    """Write a file beside `path` and rename it, so that an interruption keeps the old file."""
    make_folder(path.parent)
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


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be created ({error.strerror}): choose another folder.") from None


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file, whole or not at all."""
    write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; a missing or damaged file raises an InputError."""
    try:
        check_regular(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"There is no {path}: check the name of the folder.") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): restore it or delete it.") from None


def is_writable(text: str) -> bool:
    """Return whether files and consoles can hold a text: no control character, no half of a surrogate pair."""
    return not re.search("[\x00-\x1f\x7f\ud800-\udfff]", text)


def folder_name(text: str) -> str:
    """Return a name for a folder, of letters, digits, `.`, `-` and `_`, that stays below its parent."""
    return re.sub(r"[^\w.-]+", "-", text).lstrip(".") or "-"


def check_regular(path: Path, most: int | None = None) -> None:
    """Refuse a pipe or device, whose end may never come, and a file of more than `most` bytes."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"{path} is a folder, pipe or device, expected a file: check the path.")
    if most is not None and state.st_size > most:
        raise InputError(
            f"{path} has {state.st_size:,} bytes, expected at most {most:,}: check that it is the right file."
        )


def write_versioned(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object that names the format of its file: `{"format": FORMAT, ...}`."""
    write_json(path, {"format": FORMAT, **content})


def read_versioned(path: Path) -> Any:
    """Return what `write_versioned` wrote, without the format; older content is unchanged."""
    content = read_json(path)
    if isinstance(content, dict):
        check_format(content.pop("format", FORMAT), path)
    return content


def check_format(found: Any, path: Path) -> None:
    """Refuse a file of a newer format; `found` is a number or its text."""
    if not str(found).isdecimal() or int(found) > FORMAT:
        raise InputError(f"{path} has format {found}, this forefend reads formats up to {FORMAT}: install a newer one.")


def provenance() -> dict[str, Any]:
    """Return versions, machine, command and time, to be stored beside results."""
    versions = {name: _version(name) for name in ("forefend", "torch", "numpy", "accelerate")}
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores",
        "command": " ".join(["forefend", *sys.argv[1:]]),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
