"""The table of the load tests, from their files.

usage: PYTHONPATH=src:. python -m benchmarks.serving.page [--check]

Updates the tables of results/serve/README.md. With --check nothing is written; the exit status is 1 if they differ
from the files.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.pages import main_of
from benchmarks.serving.measure import RESULTS
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table


def main() -> int:
    """Update or check the page, and return the exit status."""
    return main_of(__doc__, RESULTS, blocks)


def blocks(root: Path = RESULTS) -> dict[str, str]:
    """Return the tables of the page by name."""
    found = [files.read_versioned(path) for path in sorted(root.glob("*.json"))]
    head = ["pipeline", "clients", "requests a second", "p50 ms", "p99 ms", "images a batch", "server CPU ms a request"]
    return {
        "pipelines": markdown_table(["pipeline", "images", "classifier", "defense", "machine"], map(pipeline, found)),
        "load": markdown_table(head, [level(one, each) for one in found for each in one["levels"]]),
        "memory": markdown_table(
            ["pipeline", "requests", "MB before", "MB after a tenth", "MB at the end"], map(memory, found)
        ),
        "stop": markdown_table(
            ["pipeline", "clients", "answers received", "told to ask later", "lost", "exit status", "s"],
            map(stop, found),
        ),
    }


def pipeline(one: Mapping[str, Any]) -> list[str]:
    """Return what was served, and where."""
    shape, about = " × ".join(map(str, one["shape"])), one["about"]
    where = f"{about['machine']}, load {one['load_before']} before and {one['load_after']} after, {about['time'][:10]}"
    return [
        one["name"],
        f"{one['data']}, {shape}, PNG of {one['bytes']} bytes",
        one["classifier"],
        one["architecture"],
        where,
    ]


def level(one: Mapping[str, Any], each: Mapping[str, Any]) -> list[str]:
    """Return the row of a number of clients."""
    keys = ("requests_per_second", "p50_ms", "p99_ms", "images_per_batch", "server_cpu_ms_per_request")
    return [one["name"], str(each["clients"]), *(str(each[key]) for key in keys)]


def memory(one: Mapping[str, Any]) -> list[str]:
    """Return the resident memory of the server."""
    sizes = one["memory"]["resident_mb"]
    return [one["name"], f"{one['memory']['requests']:,}", *(str(sizes[place]) for place in (0, 1, -1))]


def stop(one: Mapping[str, Any]) -> list[str]:
    """Return what SIGTERM did."""
    keys = ("clients", "received", "told_to_ask_later", "lost", "exit_status", "seconds")
    return [one["name"], *(str(one["stop"][key]) for key in keys)]


if __name__ == "__main__":
    sys.exit(main())
