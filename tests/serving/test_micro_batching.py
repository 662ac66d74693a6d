"""Micro-batching: what is computed together, and that nobody notices."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers.serving import PNG, client, encoded, service, toy_images, toy_pipeline
from torch import Tensor

from forefend.checks import InputError
from forefend.serving.micro_batching import MicroBatcher

Compute = Callable[[Sequence[int]], list[int]]
Steps = Callable[[MicroBatcher[int, int]], Awaitable[object]]


def run(steps: Steps, compute: Compute, *, window: float = 0.05, most: int = 4) -> list[int]:
    """Run the steps of a test with a batcher, and return the sizes of its batches."""
    sizes: list[int] = []

    async def main() -> None:
        batcher = MicroBatcher(compute, window=window, most=most, observe=sizes.append)
        await steps(batcher)
        await batcher.close()

    asyncio.run(main())
    return sizes


def squares(items: Sequence[int]) -> list[int]:
    if -1 in items:
        raise InputError("minus one")
    return [item * item for item in items]


def test_requests_that_arrive_together_are_one_batch() -> None:
    async def steps(batcher: MicroBatcher[int, int]) -> None:
        assert await asyncio.gather(*(batcher.submit([n, n + 1]) for n in (1, 5))) == [[1, 4], [25, 36]]

    assert run(steps, squares) == [4]


def test_batch_is_full_at_the_maximum_and_order_is_kept() -> None:
    async def steps(batcher: MicroBatcher[int, int]) -> None:
        found = await asyncio.gather(*(batcher.submit([n] * 3) for n in range(3)), batcher.submit(range(9)))
        assert found == [[0] * 3, [1] * 3, [4] * 3, squares(range(9))]

    assert run(steps, squares, window=0.01) == [3, 3, 3, 4, 4, 1]


def test_request_alone_does_not_wait_longer_than_the_window() -> None:
    async def steps(batcher: MicroBatcher[int, int]) -> None:
        start = asyncio.get_running_loop().time()
        assert await batcher.submit([3]) == [9]
        assert asyncio.get_running_loop().time() - start < 5

    assert run(steps, squares, window=0.01) == [1]


def test_request_at_fault_fails_alone() -> None:
    async def steps(batcher: MicroBatcher[int, int]) -> None:
        found = await asyncio.gather(*(batcher.submit([n]) for n in (2, -1, 3)), return_exceptions=True)
        assert found[::2] == [[4], [9]]
        assert isinstance(found[1], InputError)

    assert run(steps, squares) == [1, 1]


def test_cancelled_request_is_not_computed() -> None:
    async def steps(batcher: MicroBatcher[int, int]) -> None:
        gone = asyncio.create_task(batcher.submit([7]))
        stays = asyncio.create_task(batcher.submit([2]))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == [4]
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert run(steps, squares) == [1]


def test_model_runs_in_one_thread_beside_the_event_loop() -> None:
    threads = set[int]()

    def compute(items: Sequence[int]) -> list[int]:
        threads.add(threading.get_ident())
        return list(items)

    async def steps(batcher: MicroBatcher[int, int]) -> None:
        for n in range(3):
            await batcher.submit([n])

    run(steps, compute, window=0)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_answer_of_an_image_does_not_depend_on_its_company() -> None:
    """Thirty clients at once, in batches of up to eight, against the same images one by one."""
    x, made = toy_images(30), service(toy_pipeline(), window=0.05, most_images=8)

    with client(made) as server, ThreadPoolExecutor(30) as clients:

        def probabilities(image: Tensor) -> list[float]:
            answer = server.post("/predict?top=1&bare=true", content=encoded(image), headers=PNG).json()["answers"][0]
            return [answer["bare"]["probability"], answer["defended"]["probability"]]

        together = torch.tensor(list(clients.map(probabilities, x)))
        alone = torch.tensor([probabilities(image) for image in x])
        counted = server.get("/metrics").text
    assert (together - alone).abs().max() < 1e-6
    batches = next(line for line in counted.splitlines() if line.startswith("forefend_batch_images_count"))
    assert float(batches.split()[1]) < 60  # some were computed together
