"""A child process that answers for images: length-prefixed .npy arrays on its standard streams."""

from __future__ import annotations

import io
import shlex
import struct
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from forefend.checks import InputError

Array = np.ndarray[Any, Any]
LENGTH = struct.Struct("<Q")  # bytes of the .npy that follows, little-endian
LARGEST = 2**31  # bytes of an answer; more is text that was printed between the answers


class ChildProcess:
    """A function of images that a long-lived child process computes.

    For each batch the child reads eight bytes, the length of what follows as a little-endian integer, and a `.npy` file
    of `(B, C, H, W)` float32 images in [0, 1]; it writes its answers in the same form. Its input ends when no more is
    asked. What it prints to standard error is shown if it fails.

    Args:
        command: the program and its arguments; no shell reads them.
        time_limit: seconds for one batch, after which the child is ended.

    Raises:
        InputError: the command cannot be started.
    """

    def __init__(self, command: str | Sequence[str], time_limit: float) -> None:
        self.command, self.time_limit = command if isinstance(command, str) else shlex.join(command), time_limit
        if not self.command.strip():
            raise InputError("The command is empty, expected a program and its arguments: process:COMMAND names it.")
        try:
            words = shlex.split(command) if isinstance(command, str) else list(command)
            self._child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends after a step
            )
        except (OSError, IndexError, ValueError) as error:
            raise InputError(f"The command {self.command!r} cannot be started ({error}): check its program.") from None
        self._stdin: Any = self._child.stdin
        self._stdout: Any = self._child.stdout
        self._said: deque[str] = deque(maxlen=20)
        self._listener = threading.Thread(target=_listen, args=(self._child.stderr, self._said), daemon=True)
        self._listener.start()
        self.close = weakref.finalize(self, _end, self._child, self._listener)  # at the latest at exit

    def __call__(self, x: Array) -> Array:
        """Return the child's answer for images, `(B, C, H, W)` float32.

        Raises:
            InputError: the child has ended, takes too long, or answers in another form.
        """
        timer = threading.Timer(self.time_limit, self._child.kill)
        timer.daemon = True
        timer.start()
        try:
            return self._exchange(x)
        except (OSError, EOFError, ValueError) as error:  # a closed pipe, or bytes that are no .npy
            late = timer.finished.is_set()
            raise self._too_late(len(x)) if late else self._failure(error) from None
        finally:
            timer.cancel()

    def _exchange(self, x: Array) -> Array:
        npy = io.BytesIO()
        np.save(npy, x, allow_pickle=False)
        self._stdin.write(LENGTH.pack(npy.tell()) + npy.getvalue())
        self._stdin.flush()
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > LARGEST:
            raise ValueError("it prints other text to standard output")
        content = self._read(length)
        if not content.startswith(np.lib.format.MAGIC_PREFIX):
            raise ValueError("it is no .npy")
        answer: Array = np.load(io.BytesIO(content), allow_pickle=False)
        return answer

    def _read(self, count: int) -> bytes:
        found: bytes = self._stdout.read(count)
        if len(found) < count:
            raise EOFError
        return found

    def _too_late(self, count: int) -> InputError:
        self.close()
        return InputError(
            f"{self.command} did not answer {count} images within {self.time_limit:g} s: give it more time or smaller "
            "batches."
        )

    def _failure(self, error: Exception) -> InputError:
        """Return the message, with the last line that the child printed to standard error."""
        alive = self._child.poll() is None
        self.close()
        if alive and isinstance(error, ValueError):
            return InputError(
                f"{self.command} answers in another form ({error}), expected eight bytes of length and a .npy: print "
                "what else it says to standard error."
            )
        last = next((line for line in reversed(self._said) if line), "it printed nothing to standard error")
        return InputError(f"{self.command} ended with status {self._child.returncode} ({last}): correct it.")


def _listen(stream: Any, said: deque[str]) -> None:
    for line in stream:
        said.append(line.decode(errors="replace").strip())


def _end(child: subprocess.Popen[bytes], listener: threading.Thread) -> None:
    """Close the child's input, and end it if it does not end itself."""
    for stream in (child.stdin, child.stdout):
        if stream:
            with suppress(OSError):  # it closed its end first
                stream.close()
    try:
        child.wait(2)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    listener.join(2)
    if child.stderr and not listener.is_alive():
        child.stderr.close()
