"""Room: how many images go through a network at once; halved when memory runs out, instead of dying."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from forefend.checks import InputError

Output = TypeVar("Output")
_NO_MEMORY = ("out of memory", "can't allocate memory", "status_alloc_failed")


class AdaptiveBatchSize:
    """How many images may be worked on at once.

    Args:
        size: at the start; halved for good each time that memory does not suffice.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InputError(f"A batch of {size} images holds none: give at least 1.")
        self.size = size

    def map(self, rows: Tensor, work: Callable[[Tensor], Output]) -> Iterator[Output]:
        """Do `work` on the rows part by part, in their order; a part that does not fit is done again in halves.

        Args:
            rows: row numbers or any tensor whose first dimension is the batch.
            work: must change nothing before it returns.

        Raises:
            InputError: there is no memory for a single image.
        """
        done = 0
        while done < len(rows):
            part = rows[done : done + self.size]
            try:
                result = work(part)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise InputError("No memory is left even for one image: use another device.") from error
                self.size = len(part) // 2
                continue
            done += len(part)
            yield result


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is a device, one of its libraries, or the machine itself, saying that it has no more memory."""
    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(words in said for words in _NO_MEMORY)
