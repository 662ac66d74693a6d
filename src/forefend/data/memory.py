"""How much memory images take, said or refused before they are read."""

from __future__ import annotations

from forefend.checks import InputError, import_extra
from forefend.data.notices import say

SAID = 10**9  # bytes from which on it is said


def check_memory(needed: int, where: str, remedy: str) -> None:
    """Print that images take much memory, and refuse those that do not fit.

    Args:
        needed: bytes.
        where: the images, the beginning of the message.
        remedy: the end of the message.

    Raises:
        InputError: less memory is available.
    """
    available: int = import_extra("psutil", "A check of the memory", "dev").virtual_memory().available
    if needed > 0.9 * available:
        raise InputError(
            f"{where} take {needed / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available: {remedy}."
        )
    if needed >= SAID:
        say(f"{where} take {needed / 1e9:.1f} GB of memory.")
