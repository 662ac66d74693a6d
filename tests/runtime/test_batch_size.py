from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.batch_size import AdaptiveBatchSize, out_of_memory

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "DefaultCPUAllocator: can't allocate memory: you tried",
    "could not create a primitive",
    "std::bad_alloc",
)


def machine(holds: int, said: str = SAID[0]) -> tuple[list[int], object]:
    """A function that fails on too many rows, and records the sizes of the others."""
    done: list[int] = []

    def work(rows: Tensor) -> list[int]:
        if len(rows) > holds:
            raise RuntimeError(said)
        done.append(len(rows))
        return rows.tolist()

    return done, work


@given(count=st.integers(0, 40), size=st.integers(1, 50), holds=st.integers(1, 50))
def test_map_applies_function_once_to_each_row_in_order(count: int, size: int, holds: int) -> None:
    done, work = machine(holds)
    room = AdaptiveBatchSize(size)
    found = [row for part in room.map(torch.arange(count), work) for row in part]  # type: ignore[arg-type]
    assert found == list(range(count))
    assert not done or max(done) <= min(size, holds)


@pytest.mark.parametrize("said", SAID)
def test_map_keeps_halved_size(said: str) -> None:
    done, work = machine(3, said)
    room = AdaptiveBatchSize(16)
    list(room.map(torch.arange(8), work))  # type: ignore[arg-type]
    assert (room.size, done) == (2, [2, 2, 2, 2])
    list(room.map(torch.arange(4), work))  # type: ignore[arg-type]
    assert done == [2] * 6


def test_map_halves_after_memory_error() -> None:
    def work(rows: Tensor) -> int:
        if len(rows) > 2:
            raise MemoryError
        return len(rows)

    assert list(AdaptiveBatchSize(8).map(torch.arange(8), work)) == [2, 2, 2, 2]


def test_map_without_memory_for_one_image_raises() -> None:
    with pytest.raises(InputError, match="single image"):
        list(AdaptiveBatchSize(4).map(torch.arange(4), machine(0)[1]))  # type: ignore[arg-type]


def test_map_passes_other_errors_on() -> None:
    def work(rows: Tensor) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(AdaptiveBatchSize(4).map(torch.arange(4), work))
    assert out_of_memory(torch.OutOfMemoryError("whatever"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shapes"))
    assert not out_of_memory(RuntimeError("could not create a primitive descriptor for a convolution"))


def test_adaptive_batch_size_below_one_raises() -> None:
    with pytest.raises(InputError, match="at least 1"):
        AdaptiveBatchSize(0)
