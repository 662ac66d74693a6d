"""Sentences about the data that are printed once."""

from __future__ import annotations

import os
from functools import cache


@cache
def say(sentence: str) -> None:
    """Print a sentence, once in a process and only in the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        print(sentence, flush=True)
