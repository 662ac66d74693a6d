"""Clients that ask one server at the same time, in processes of their own."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

PROCESSES = 2
HEADERS = {"Content-Type": "image/png"}
TIMEOUT = 60


@dataclass(frozen=True)
class Load:
    """What clients saw.

    Args:
        seconds: from the first request to the last answer.
        latencies: seconds of each answered request.
        statuses: how many answers had each HTTP status.
        refused: connections that the server did not take, each of which ends its client.
        broken: requests that were sent and got no answer.
    """

    seconds: float
    latencies: Sequence[float]
    statuses: Counter[int]
    refused: int
    broken: int


@contextmanager
def client_processes() -> Iterator[Executor]:
    """Start the processes in which clients run; their start takes seconds, and is not measured."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(time.sleep, [0.5] * PROCESSES))  # each process takes one
        yield processes


def ask(processes: Executor, address: str, bodies: Sequence[bytes], *, clients: int, requests: int | None) -> Load:
    """Ask `/predict` by several clients, each of which sends its next request when it has an answer.

    Args:
        processes: where the clients run.
        address: of the server.
        bodies: PNG files, which are sent in turn.
        clients: connections that are open at a time.
        requests: of all clients together; None until the server refuses.
    """
    count = min(PROCESSES, clients)
    shares = [clients // count + (rank < clients % count) for rank in range(count)]
    begun = time.perf_counter()
    work = [
        processes.submit(_process, address, bodies, share, None if requests is None else requests * share // clients)
        for share in shares
    ]
    parts = [one.result() for one in work]
    return _joined(parts, time.perf_counter() - begun)


def _process(address: str, bodies: Sequence[bytes], clients: int, requests: int | None) -> Load:
    """Ask by threads of one process."""
    counts = [None if requests is None else (requests + rank) // clients for rank in range(clients)]
    with ThreadPoolExecutor(clients) as threads:
        return _joined(list(threads.map(lambda count: _client(address, bodies, count), counts)), 0)


def _joined(parts: Sequence[Load], seconds: float) -> Load:
    return Load(
        seconds,
        [latency for part in parts for latency in part.latencies],
        sum((part.statuses for part in parts), Counter()),
        sum(part.refused for part in parts),
        sum(part.broken for part in parts),
    )


def _client(address: str, bodies: Sequence[bytes], requests: int | None) -> Load:
    """Ask over one connection until the requests are done, or the server refuses."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=TIMEOUT)
    latencies, statuses, refused, broken = list[float](), Counter[int](), 0, 0
    while requests is None or sum(statuses.values()) < requests:
        begun = time.perf_counter()
        try:
            connection.request("POST", "/predict", bodies[sum(statuses.values()) % len(bodies)], HEADERS)
            answer = connection.getresponse()
            answer.read()
        except ConnectionRefusedError:
            refused = 1
            break
        except (OSError, http.client.HTTPException):
            broken = 1
            break
        latencies.append(time.perf_counter() - begun)
        statuses[answer.status] += 1
        if answer.status == 503:
            break
    connection.close()
    return Load(0, latencies, statuses, refused, broken)
