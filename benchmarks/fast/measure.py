"""Run one suite on one case, and count what it costs.

usage: PYTHONPATH=src:. python -m benchmarks.fast.measure CASE SUITE [--images N] [--seed S] [--curve] [--out FOLDER]

Writes records to results/fast/CASE/SUITE, and appends what this call cost to `cost.jsonl` there. A call that was
interrupted is resumed by the same command. With --curve it attacks at several radii, and the folder is
results/fast/CASE/curve/SUITE. Requires pyautoattack, the published classifiers in FOREFEND_DATA, and for
the Fashion-MNIST cases the runs of `benchmarks/fast/train.sh`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.fast.cases import CASES
from benchmarks.fast.counting import Passes, counted
from forefend.attacks.autoattack import AutoAttack
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.suites import SUITES
from forefend.evaluation.trial import Suite, Terms, Trial
from forefend.runtime import files
from forefend.threat_models.base import ThreatModel

RESULTS = Path("results/fast")
IMAGES = 1000
FACTORS = (0.5, 0.75, 1, 1.25, 1.5)  # of the radius, for a curve
BATCH = {"autoattack": 20}  # a batch of AutoAttack is recorded when it ends


def main() -> int:
    """Measure, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("suite", choices=["autoattack", *SUITES])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    case = CASES[given.case]
    folder = given.out or RESULTS / given.case / ("curve" if given.curve else "") / given.suite
    model, images = case.model(), case.sample(given.images, given.seed)
    threats = [type(case.threat)(factor * case.threat.radius) for factor in FACTORS] if given.curve else [case.threat]
    suite = [trial for threat in threats for trial in trials(given.suite, threat)]
    passes = Passes()
    try:
        with counted(passes):
            evaluate([model], images, suite, folder=folder, batch_size=BATCH.get(given.suite, 250))
    finally:
        with (folder / "cost.jsonl").open("ab") as file:
            file.write(files.json_line(passes))
    return 0


def trials(suite: str, threat: ThreatModel) -> Suite:
    """Return the trials of a suite; `autoattack` is the first of `standard` alone."""
    if suite == "autoattack":
        return [Trial("AutoAttack", AutoAttack(threat), threat)]
    return SUITES[suite](Terms([threat]))


if __name__ == "__main__":
    sys.exit(main())
