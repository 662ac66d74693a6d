"""The process of an implementation: runs the work that each line of its input names.

usage: PYTHONPATH=src:. python -m benchmarks.speed.worker
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.speed.results import Point, Setup, Work
from benchmarks.speed.timing import gpu

Setups = Mapping[tuple[str, str], Setup]  # by benchmark and implementation


def serve(setups: Setups, about: Mapping[str, Any]) -> None:
    """Answer each line of the input, a point as JSON, with the outcome of its work as JSON, until the input ends.

    The first request for a point sets up its work and runs nothing. A request for another benchmark frees all work.

    Args:
        setups: sets up the work, by benchmark and implementation.
        about: the first line of the output: versions and the like.
    """
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries must not mix with the answers
    print(json.dumps(about), file=answers, flush=True)
    works: dict[Point, Work] = {}
    for line in sys.stdin:
        point = Point(**json.loads(line))
        if any(other.benchmark != point.benchmark for other in works):
            works.clear()
        try:
            if point in works:
                answer = dict(works[point]())
            else:
                works[point], answer = setups[point.benchmark, point.implementation](point.case), {}
        except Exception as error:  # the parent process decides what a failure means
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Serve our own implementations of every benchmark."""
    from benchmarks.speed.registry import BENCHMARKS

    setups = {
        (name, implementation): setup
        for name, benchmark in BENCHMARKS.items()
        for implementation, setup in benchmark.IMPLEMENTATIONS.items()
    }
    serve(setups, {"torch": torch.__version__, "gpu": gpu()})


if __name__ == "__main__":
    main()
