"""Atomic writes, appended lines, and the format number of JSON files."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from forefend.checks import InputError
from forefend.runtime.folders import TEMPORARY, check_in_place, make_folder

Record = TypeVar("Record")
DamagedLines = Callable[[Path, Mapping[int, str]], None]  # the file, and by line number what is wrong
FORMAT = 1  # of every JSON file and checkpoint; a change that older versions cannot read raises it


def append(path: Path, *records: Any) -> None:
    """Append a line for each record, a dataclass of plain values.

    An incomplete last line, as after kill -9, is cut before.

    Raises:
        InputError: the folder was deleted.
    """
    append_lines(path, b"".join(map(json_line, records)))


def append_lines(path: Path, lines: bytes) -> None:
    """Append complete lines to a file, as `append` does."""
    check_in_place(path.parent)
    try:
        with path.open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(lines)
    except FileNotFoundError:
        raise InputError(f"{path.parent} was deleted meanwhile: run the same command again to start over.") from None


def json_line(record: Any) -> bytes:
    """Return the line of a record, a dataclass of plain values, with a digest of its content."""
    content = asdict(record)
    return (json.dumps(content | {"digest": content_digest(content)}, separators=(",", ":")) + "\n").encode()


def content_digest(content: Any) -> str:
    """Return sixteen hexadecimal digits over a JSON value; keys may have any order."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def complete_lines(path: Path) -> list[bytes]:
    """Return the complete lines of a file, an empty list if it does not exist.

    Raises:
        InputError: it is a folder, pipe or device.
    """
    try:
        check_regular(path)
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    return text[: text.rfind(b"\n") + 1].splitlines()


def leave(path: Path, damaged: Mapping[int, str]) -> None:
    """Name damaged lines of a file, by number with the reason; they stay where they are."""
    _tell(path, damaged, "not used", "evaluate again to compute its images")


def set_aside(path: Path, damaged: Mapping[int, str]) -> None:
    """Move damaged lines into another file beside this one, so that later runs do not meet them."""
    aside = path.with_suffix(f".damaged{path.suffix}")
    _tell(path, damaged, f"moved to {aside.name}", "its images are computed again")
    lines = [line + b"\n" for line in complete_lines(path)]
    append_lines(aside, b"".join(lines[number - 1] for number in damaged))
    write(path, b"".join(line for number, line in enumerate(lines, start=1) if number not in damaged))


def _tell(path: Path, damaged: Mapping[int, str], what: str, effect: str) -> None:
    number, reason = next(iter(damaged.items()))
    others = f", and {len(damaged) - 1} more like it" if len(damaged) > 1 else ""
    print(f"Line {number} of {path} is {what} ({reason}){others}: {effect}.", flush=True)


def read_records(path: Path, kind: Callable[..., Record], damaged: DamagedLines = leave) -> list[tuple[int, Record]]:
    """Return the records that `append` wrote with their line numbers, oldest first.

    A line that is damaged or edited is left out. Files from before digests hold none.

    Args:
        path: the file; it may not exist.
        kind: makes a record of the values of a line, and raises InputError or TypeError if they do not fit.
        damaged: receives the lines that are left out: `leave` names them, and `set_aside` moves them.
    """
    found, refused = list[tuple[int, Record]](), dict[int, str]()
    digests = False
    for number, line in enumerate(complete_lines(path), start=1):
        try:
            content = json.loads(line)
            digest = content.pop("digest", None)
            if digest != content_digest(content) and (digests or digest is not None):
                raise InputError("it was edited or damaged after it was written")
            found.append((number, kind(**content)))
            digests |= digest is not None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            refused[number] = str(error) if isinstance(error, InputError) else "it is not a record"
    if refused:
        damaged(path, refused)
    return found


def write(path: Path, content: bytes) -> None:
    """Write a file beside `path` and rename it into place, so that an interruption leaves the old file intact.

    Raises:
        InputError: the folder cannot be created, or was deleted since it was locked.
    """
    check_in_place(path.parent)
    make_folder(path.parent)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
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
        "command": _command(sys.argv),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _command(words: Sequence[str]) -> str:
    """Return the command line of this process, quoted for a shell; that of a script names the script."""
    script = Path(words[0] if words else "")
    ours = script.stem == "forefend" or script.parts[-2:] == ("forefend", "__main__.py")
    return shlex.join([*(["forefend"] if ours else ["python", *words[:1]]), *words[1:]])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
