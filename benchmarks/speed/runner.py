"""Measure speed: start the subjects, let them take turns, and write what came of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed import environments, table
from benchmarks.speed.cases import TARGETS
from benchmarks.speed.environments import Hosts
from benchmarks.speed.interleaving import BenchmarkError, interleaved
from benchmarks.speed.registry import BENCHMARKS
from benchmarks.speed.results import Figure, Outcome, Point, quartiles
from forefend.checks import InputError, choose
from forefend.runtime import files

ROUNDS, QUICK_ROUNDS = 5, 3
VARYING = ("seconds", "gflops_per_second", "per_gflop")  # from round to round; the rest of an answer does not


@dataclass
class Findings:
    """What a bench has found so far.

    Args:
        figures: the ratios.
        measured: every point, its seconds in each round, and what else it answered.
        absent: what was left out, and why.
        load: the machine's load average before each question and after the last.
        subjects: what each subject's process said of itself.
        seconds: on the clock, of each question.
    """

    figures: list[Figure] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    load: dict[str, list[float]] = field(default_factory=dict)
    subjects: dict[str, Outcome] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run(options: Any) -> str:
    """Measure, write `bench.json` after each question, and return the table.

    Raises:
        InputError: an unknown question, no round, or a place that cannot be written to.
    """
    names = options.questions or list(BENCHMARKS)
    for name in names:
        choose(name, BENCHMARKS, "question")
    rounds = options.rounds if options.rounds is not None else QUICK_ROUNDS if options.quick else ROUNDS
    if rounds < 1:
        raise InputError(f"The number given for rounds is {rounds}, expected at least 1.")
    out = Path(options.out)
    if out.is_file():
        raise InputError(f"{out} is a file, expected a folder: choose another --out.")
    if options.data_dir:
        os.environ["FOREFEND_DATA"] = options.data_dir
    found = Findings()
    with Hosts(Path(options.peers)) as there:
        for name in names:
            print(f"{name}: {rounds} rounds", flush=True)
            began = time.monotonic()
            found.load[name] = list(os.getloadavg())
            measure(BENCHMARKS[name].points(options.quick), rounds, there, found)
            found.seconds[name] = time.monotonic() - began
            _write(out, {"quick": options.quick, "rounds": rounds, "questions": names}, found)
    left = [f"left out: {what}: {why}" for what, why in found.absent.items()]
    return "\n".join([table.text(found.figures), *left])


def measure(points: Sequence[Point], rounds: int, there: Hosts, found: Findings) -> None:
    """Let one question's subjects take turns, and add what they found.

    Args:
        points: the question's.
        rounds: how often each point is measured.
        there: where the subjects live.
        found: where it is added.
    """
    lacking = {point: environments.lacks(point, TARGETS) for point in points}
    found.absent |= {f"{point.case}": why for point, why in lacking.items() if why}
    points = [point for point in points if not lacking[point]]
    for name in dict.fromkeys(point.subject for point in points):
        try:
            found.subjects[name] = there.subject(name).about
        except BenchmarkError as error:
            found.absent[name] = str(error)
    asked = [point for point in points if point.subject in found.subjects]
    measured, failed = interleaved(asked, lambda point: there.subject(point.subject).ask(point), rounds)
    found.absent |= {f"{point.subject}, {point.case}": why for point, why in failed.items()}
    found.figures += BENCHMARKS[points[0].question].figures(measured) if measured else []
    found.measured += [_row(point, outcomes) for point, outcomes in measured.items()]


def _row(point: Point, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """A point's rounds as JSON values."""
    seconds = [float(outcome["seconds"]) for outcome in outcomes]
    middle, low, high = quartiles(seconds)
    rest = {name: value for name, value in outcomes[0].items() if name not in (*VARYING, "batches")}
    rates = [outcome["gflops_per_second"] for outcome in outcomes if "gflops_per_second" in outcome]
    return {
        **{"question": point.question, "case": point.case, "subject": point.subject},
        **{"seconds": middle, "low": low, "high": high, "rounds": seconds},
        **({"gflops_per_second": quartiles(rates)[0]} if rates else {}),
        **rest,
    }


def _write(out: Path, settings: Mapping[str, Any], found: Findings) -> None:
    written = {
        "about": files.provenance(),
        "machine": environments.machine(),
        "settings": settings,
        "load": found.load | {"at the end": list(os.getloadavg())},
        "seconds": found.seconds,
        "figures": [figure.plain() for figure in found.figures],
        "measured": found.measured,
        "absent": found.absent,
        "subjects": found.subjects,
    }
    files.write_json(out / "bench.json", written)
