"""Micro-batching: requests that arrive together are computed together, in one thread beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Job(Generic[Item, Result]):
    items: Sequence[Item]
    done: asyncio.Future[list[Result]]


class MicroBatcher(Generic[Item, Result]):
    """Collects items of several requests and computes them with one call.

    Where a call fails, the requests of its batch are computed one by one, so that only the one at fault fails.

    Args:
        compute: items to one result for each, in order; it runs in one thread of its own.
        window: seconds to wait for more items after the first.
        most: items of a batch; a request with more is computed in several calls.
        observe: is told the size of each batch.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], list[Result]],
        *,
        window: float,
        most: int,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._compute, self._window, self._most, self._observe = compute, window, most, observe
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._queue: asyncio.Queue[_Job[Item, Result]] = asyncio.Queue()
        self._left: _Job[Item, Result] | None = None  # taken from the queue, and too large for the batch before
        self._task: asyncio.Task[None] | None = None

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Return the results of items once their batch is computed.

        Raises:
            Exception: what `compute` raises for these items.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        job = _Job[Item, Result](items, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(job)
        return await job.done

    async def close(self) -> None:
        """Stop the thread; every request must have its answer."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        while True:
            jobs = await self._gathered()
            jobs = [job for job in jobs if not job.done.cancelled()]  # its client has left
            if not await self._computed(jobs) and len(jobs) > 1:
                for job in jobs:
                    await self._computed([job])

    async def _gathered(self) -> list[_Job[Item, Result]]:
        """Wait for a first request, and take those that follow within the window and fit."""
        jobs = [self._left or await self._queue.get()]
        self._left, size = None, len(jobs[0].items)
        end = asyncio.get_running_loop().time() + self._window
        while size < self._most:
            try:
                async with asyncio.timeout_at(end):
                    job = await self._queue.get()
            except TimeoutError:
                break
            if size + len(job.items) > self._most:
                self._left = job
                break
            jobs.append(job)
            size += len(job.items)
        return jobs

    async def _computed(self, jobs: Sequence[_Job[Item, Result]]) -> bool:
        """Compute requests and answer them; False if several failed together."""
        items = [item for job in jobs for item in job.items]
        loop, results = asyncio.get_running_loop(), list[Result]()
        try:
            for start in range(0, len(items), self._most):
                part = items[start : start + self._most]
                results += await loop.run_in_executor(self._thread, self._compute, part)
                self._observe(len(part))
        except Exception as error:  # of any kind, which the request's own handler names
            if len(jobs) == 1 and not jobs[0].done.cancelled():
                jobs[0].done.set_exception(error)
            return False
        for job in jobs:
            own, results = results[: len(job.items)], results[len(job.items) :]
            if not job.done.cancelled():
                job.done.set_result(own)
        return True
