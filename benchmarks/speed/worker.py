"""Worker: the process in which a subject of the bench lives; it does work when a line on its input says which.

usage: python -m forefend.worker
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks.speed.results import Maker, Point, Work
from benchmarks.speed.timing import gpu

Makers = Mapping[tuple[str, str], Maker]  # by question and subject


def serve(makers: Makers, about: Mapping[str, Any]) -> None:
    """Answer each line of the input, a point as JSON, with the outcome of its work, also as JSON, until the input ends.

    A point's work is set up when it is first asked for, which is all that is done then; it is let go of when another
    question begins.

    Args:
        makers: who sets up which work.
        about: said once at the beginning: versions and the like.
    """
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    print(json.dumps(about), file=answers, flush=True)
    works: dict[Point, Work] = {}
    for line in sys.stdin:
        point = Point(**json.loads(line))
        if any(other.question != point.question for other in works):
            works.clear()
        try:
            if point in works:
                answer = dict(works[point]())
            else:
                works[point], answer = makers[point.question, point.subject](point.case), {}
        except Exception as error:  # the asker decides what a failure means
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Serve every question's own subjects."""
    from benchmarks.speed.registry import BENCHMARKS

    makers = {
        (name, subject): maker for name, question in BENCHMARKS.items() for subject, maker in question.SUBJECTS.items()
    }
    serve(makers, {"torch": torch.__version__, "gpu": gpu()})


if __name__ == "__main__":
    main()
