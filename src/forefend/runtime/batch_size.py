"""An adaptive batch size: halved each time that memory runs out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from forefend.checks import InputError

Output = TypeVar("Output")
_NO_MEMORY = re.compile(
    "out of memory|can't allocate memory|cannot allocate memory|not enough memory|status_alloc_failed|bad_alloc"
    "|could not create a (primitive|memory object)$"  # of oneDNN, which names no cause
)


class AdaptiveBatchSize:
    """The number of images processed at once; halved for good where memory does not suffice."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InputError(f"The batch size is {size}, expected at least 1.")
        self.size = size

    def map(self, rows: Tensor, function: Callable[[Tensor], Output]) -> Iterator[Output]:
        """Apply a function to rows in batches, in order; halve batches that do not fit in memory.

        The function must change no state before it returns.
        """
        done = 0
        while done < len(rows):
            part = rows[done : done + self.size]
            try:
                result = function(part)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise InputError("There is no memory left for a single image: use another device.") from error
                self.size = len(part) // 2
                continue
            done += len(part)
            yield result


def out_of_memory(error: Exception) -> bool:
    """Return whether an error means that a device or the machine is out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(_NO_MEMORY.search(str(error).lower()))
