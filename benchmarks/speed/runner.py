"""Run benchmarks and write their results."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed import environments, table
from benchmarks.speed.cases import MODELS
from benchmarks.speed.environments import Environments
from benchmarks.speed.interleaving import BenchmarkError, interleaved
from benchmarks.speed.registry import BENCHMARKS
from benchmarks.speed.results import Figure, Outcome, Point, quartiles
from forefend.checks import InputError, choose
from forefend.runtime import files

ROUNDS, QUICK_ROUNDS = 5, 3
VARYING = ("seconds", "gflops_per_second", "per_gflop")  # differ between rounds; the rest of an outcome does not


@dataclass
class Findings:
    """The results so far.

    Args:
        figures: the ratios.
        measured: every point with its seconds in each round, and the rest of its outcome.
        absent: what was left out, and why.
        load: load averages of the machine before each benchmark and after the last.
        implementations: what each process reported of itself.
        seconds: of each benchmark, by the wall clock.
    """

    figures: list[Figure] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    load: dict[str, list[float]] = field(default_factory=dict)
    implementations: dict[str, Outcome] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def run(options: Any) -> str:
    """Measure, write `bench.json` after each benchmark, and return the table.

    Raises:
        InputError: an unknown benchmark, no round, or an output folder that is a file.
    """
    names = options.benchmarks or list(BENCHMARKS)
    for name in names:
        choose(name, BENCHMARKS, "benchmark")
    rounds = options.rounds if options.rounds is not None else QUICK_ROUNDS if options.quick else ROUNDS
    if rounds < 1:
        raise InputError(f"The number given for rounds is {rounds}, expected at least 1.")
    out = Path(options.out)
    if out.is_file():
        raise InputError(f"{out} is a file, expected a folder: choose another --out.")
    if options.data_dir:
        os.environ["FOREFEND_DATA"] = options.data_dir
    found = Findings()
    with Environments(Path(options.environments)) as processes:
        for name in names:
            print(f"{name}: {rounds} rounds", flush=True)
            began = time.monotonic()
            found.load[name] = list(os.getloadavg())
            measure(BENCHMARKS[name].points(options.quick), rounds, processes, found)
            found.seconds[name] = time.monotonic() - began
            _write(out, {"quick": options.quick, "rounds": rounds, "questions": names}, found)
    absent = [f"left out: {what}: {why}" for what, why in found.absent.items()]
    return "\n".join([table.text(found.figures), *absent])


def measure(points: Sequence[Point], rounds: int, processes: Environments, found: Findings) -> None:
    """Run one benchmark, and add its results.

    Args:
        points: of the benchmark.
        rounds: how often each point is measured.
        processes: of the implementations.
        found: the results are added here.
    """
    missing = {point: environments.missing_file(point, MODELS) for point in points}
    found.absent |= {point.case: why for point, why in missing.items() if why}
    points = [point for point in points if not missing[point]]
    for name in dict.fromkeys(point.implementation for point in points):
        try:
            found.implementations[name] = processes.process(name).about
        except BenchmarkError as error:
            found.absent[name] = str(error)
    present = [point for point in points if point.implementation in found.implementations]
    measured, failed = interleaved(
        present, lambda point: processes.process(point.implementation).measure(point), rounds
    )
    found.absent |= {f"{point.implementation}, {point.case}": why for point, why in failed.items()}
    found.figures += BENCHMARKS[points[0].benchmark].figures(measured) if measured else []
    found.measured += [_row(point, outcomes) for point, outcomes in measured.items()]


def _row(point: Point, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the rounds of a point as JSON values."""
    seconds = [float(outcome["seconds"]) for outcome in outcomes]
    middle, low, high = quartiles(seconds)
    constant = {name: value for name, value in outcomes[0].items() if name not in (*VARYING, "batches")}
    rates = [outcome["gflops_per_second"] for outcome in outcomes if "gflops_per_second" in outcome]
    return {
        **{"question": point.benchmark, "case": point.case, "subject": point.implementation},
        **{"seconds": middle, "low": low, "high": high, "rounds": seconds},
        **({"gflops_per_second": quartiles(rates)[0]} if rates else {}),
        **constant,
    }


def _write(out: Path, settings: Mapping[str, Any], found: Findings) -> None:
    written = {
        "about": files.provenance(),
        "machine": environments.machine(),
        "settings": settings,
        "load": found.load | {"at the end": list(os.getloadavg())},
        "seconds": found.seconds,
        "figures": [figure.to_json() for figure in found.figures],
        "measured": found.measured,
        "absent": found.absent,
        "subjects": found.implementations,
    }
    files.write_json(out / "bench.json", written)
