"""Measure a server under load: requests a second, latency, memory, and what SIGTERM loses.

usage: PYTHONPATH=src:. python -m benchmarks.serving.measure NAME RUN [--data DATA] [--classifier NAME] [--requests N]

Starts `forefend serve RUN` on this machine, asks it by clients in other processes, and writes results/serve/NAME.json.
The clients take a part of the same cores. `python -m benchmarks.serving.page` makes the page.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image

from benchmarks.serving.clients import Load, ask, client_processes
from benchmarks.serving.process import ServerProcess
from forefend import data
from forefend.runtime import files

RESULTS = Path(__file__).parents[2] / "results" / "serve"
CLIENTS = (1, 8, 32)
MEMORY_REQUESTS, MEMORY_PARTS, MEMORY_CLIENTS = 10_000, 10, 16
STOP_CLIENTS = 16
Asks = Callable[..., Load]


def main() -> int:
    """Measure one pipeline, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", default="digits", help="test images to send")
    parser.add_argument("--classifier")
    parser.add_argument("--requests", type=int, default=2000, help="at each number of clients")
    parser.add_argument("--root", type=Path, default=RESULTS)
    given = parser.parse_args()
    words = [str(given.run), *(["--classifier", given.classifier] if given.classifier else [])]
    bodies, load = pictures(given.data), os.getloadavg()[0]
    with client_processes() as processes, ServerProcess(words, Path.cwd()) as server:
        asks = partial(ask, processes, server.address, bodies)
        found = {"name": given.name, "data": given.data, "load_before": round(load, 1)}
        found |= described(server.address, bodies)
        asks(clients=8, requests=200)  # not measured
        found["levels"] = [level(asks, server.address, clients, given.requests) for clients in CLIENTS]
        found["memory"] = memory(asks, server.address)
        found["load_after"] = round(os.getloadavg()[0], 1)
        found["stop"] = stop(asks, server)
    files.write_versioned(given.root / f"{given.name}.json", {**found, "about": files.provenance()})
    return int(found["stop"]["lost"] != 0)


def pictures(name: str, count: int = 100) -> list[bytes]:
    """Return test images as PNG files."""
    images = data.sample(data.load(name, "test"), count, seed=0)
    x, _, _ = images.batch(torch.arange(len(images)))
    return [_png((255 * image).round().byte().permute(1, 2, 0).squeeze(2).numpy()) for image in x]


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def described(address: str, bodies: Sequence[bytes]) -> dict[str, Any]:
    """Return what is served, and what is sent."""
    info = json.loads(get(address, "/info"))
    return {
        "classifier": info["classifier"]["name"],
        "architecture": info["defense"]["architecture"],
        "shape": info["images"]["shape"],
        "limits": info["limits"],
        "bytes": round(sum(map(len, bodies)) / len(bodies)),
    }


def level(asks: Asks, address: str, clients: int, requests: int) -> dict[str, Any]:
    """Measure requests a second and latency at a number of clients.

    Raises:
        RuntimeError: a request was not answered.
    """
    before = counters(address)
    load = asks(clients=clients, requests=requests)
    if load.statuses.keys() != {200} or load.broken or load.refused:
        raise RuntimeError(f"{clients} clients: {dict(load.statuses)}, {load.broken} broken, {load.refused} refused")
    after, milliseconds = counters(address), 1000 * np.array(load.latencies)
    images = after["forefend_batch_images_sum"] - before["forefend_batch_images_sum"]
    batches = after["forefend_batch_images_count"] - before["forefend_batch_images_count"]
    busy = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return {
        "clients": clients,
        "requests": sum(load.statuses.values()),
        "requests_per_second": round(sum(load.statuses.values()) / load.seconds, 1),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 2),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 2),
        "images_per_batch": round(images / batches, 2),
        "server_cpu_ms_per_request": round(1000 * busy / sum(load.statuses.values()), 2),
    }


def memory(asks: Asks, address: str) -> dict[str, Any]:
    """Return the resident memory in MB before, and after each tenth of ten thousand requests."""
    sizes = [counters(address)["process_resident_memory_bytes"]]
    for _ in range(MEMORY_PARTS):
        asks(clients=MEMORY_CLIENTS, requests=MEMORY_REQUESTS // MEMORY_PARTS)
        sizes.append(counters(address)["process_resident_memory_bytes"])
    return {"requests": MEMORY_REQUESTS, "resident_mb": [round(size / 1e6, 1) for size in sizes]}


def stop(asks: Asks, server: ServerProcess) -> dict[str, Any]:
    """Send SIGTERM while clients ask, and count what was accepted, answered and received.

    `lost` is what the server accepted and did not answer, or a client did not receive.
    """
    before = counters(server.address)['forefend_requests_total{path="/predict",status="200"}']
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(asks, clients=STOP_CLIENTS, requests=None)
        while counters(server.address)['forefend_requests_total{path="/predict",status="200"}'] < before + 500:
            time.sleep(0.02)
        server.process.send_signal(signal.SIGTERM)
        begun = time.perf_counter()
        while not any('"stopped"' in line for line in server.lines) and server.process.poll() is None:
            time.sleep(0.01)
        seconds, status, load = time.perf_counter() - begun, server.ended(), asking.result()
    last = next(line for line in reversed(server.log()) if line["event"] == "stopped")
    sent = sum(line.get("path") == "/predict" and line.get("status") == 200 for line in server.log())
    received = load.statuses[200]
    return {
        "clients": STOP_CLIENTS,
        "received": received,
        "told_to_ask_later": load.statuses[503],
        "sent_without_answer": load.broken,
        "exit_status": status,
        "seconds": round(seconds, 2),
        "lost": last["accepted"] - last["answered"] + (sent - int(before) - received),
    }


def counters(address: str) -> dict[str, float]:
    """Return the metrics of a server by name and labels."""
    lines = get(address, "/metrics").decode().splitlines()
    found = [re.fullmatch(r"(\w+(?:\{[^}]*\})?) (\S+)", line) for line in lines]
    return {match[1]: float(match[2]) for match in found if match}


def get(address: str, path: str) -> bytes:
    """Return the answer of a server to GET."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request("GET", path)
    content = connection.getresponse().read()
    connection.close()
    return content


if __name__ == "__main__":
    sys.exit(main())
