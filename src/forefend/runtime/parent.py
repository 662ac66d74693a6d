"""End a process with the one that started it, also after kill -9."""

from __future__ import annotations

import os
import threading
import time

POLL = 0.5  # seconds


def end_with_torchrun() -> None:
    """End this process when `torchrun`, which started it, ends; torchrun cannot do so itself after kill -9.

    Elsewhere it does nothing.
    """
    name = "end with torchrun"
    if "TORCHELASTIC_RUN_ID" not in os.environ or name in {thread.name for thread in threading.enumerate()}:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os._exit(1)

    threading.Thread(target=watch, name=name, daemon=True).start()


def end_with_pipe() -> None:
    """End this process when the other end of its standard input closes, as at the end of the process that has it."""

    def wait() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
