"""Folders that one process at a time writes to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from forefend.checks import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where folders are not locked
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"  # ending of a file that is renamed once it is complete
_held: dict[tuple[Path, int], int] = {}  # by folder and thread, the handles of the locks of this process


def make_folder(folder: Path) -> None:
    """Create a folder if it does not exist.

    Raises:
        InputError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be created ({error.strerror}): choose another folder.") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this thread; it is created if it does not exist. Stale temporary files in it are removed.

    A folder that was created and is still empty at the end is removed: a refusal leaves nothing behind. The system
    releases the lock when the process ends, also after kill -9. A thread may hold a folder several times.

    Raises:
        InputError: another process or thread holds the folder.
    """
    created = not folder.exists()
    make_folder(folder)
    key = folder.resolve(), threading.get_ident()
    if fcntl is None or key in _held:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"Another process writes to {folder}: wait until it ends, or choose another folder."
                ) from None
        _held[key] = handle
        for path in folder.iterdir():
            if is_temporary(path):
                path.unlink(missing_ok=True)
        yield
    finally:
        _held.pop(key, None)
        if created and _in_place(folder, handle):
            with suppress(OSError):  # not empty
                folder.rmdir()
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a process writes to the folder; False where the file system has no locks."""
    if fcntl is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def is_temporary(path: Path) -> bool:
    """Whether an interrupted write left the file."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def check_in_place(folder: Path) -> None:
    """Refuse to write to a folder that was deleted or replaced since this process locked it.

    Args:
        folder: a locked folder, or one inside it; others are not checked.

    Raises:
        InputError: the locked folder is not there any more.
    """
    for (place, _), handle in list(_held.items()):
        if place not in (folder.resolve(), *folder.resolve().parents):
            continue
        if not _in_place(place, handle):
            raise InputError(f"{place} was deleted or replaced meanwhile: run the same command again to start over.")


def _in_place(folder: Path, handle: int) -> bool:
    """Whether the folder is the one that was opened."""
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except OSError:
        return False
