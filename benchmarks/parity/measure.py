"""Train one way with one seed, or attack what came of it.

usage: PYTHONPATH=src:. python -m benchmarks.parity.measure VERB TASK WAY SEED

train leaves runs/parity/TASK/WAY-sSEED; pgd and autoattack leave records in results/parity/TASK/WAY-sSEED. Needs the
data sets and others' classifiers in FOREFEND_DATA, and pyautoattack.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.speed.benchmarks.recipes import leaves
from forefend import data
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.cli.resolve_classifiers import Finder
from forefend.evaluation import records
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.fast_trials import swiftly
from forefend.evaluation.trial import Suite, Trial
from forefend.losses import margin
from forefend.models.defense import Defended, load
from forefend.runtime import files, run_folder

from .protocol import ALONE, RESULTS, RUNS, SEEDS, TASKS, WAYS, command, place


def main() -> int:
    """Read the command line, do one thing, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("way", choices=[*WAYS, ALONE])
    parser.add_argument("seed", type=int, choices=SEEDS)
    given = parser.parse_args()
    if given.way not in TASKS[given.task].epochs and (given.verb, given.way) != ("pgd", ALONE):
        parser.error(f"{given.task} has no way {given.way!r} to {given.verb}: its ways are in protocol.py")
    VERBS[given.verb](given.task, given.way, given.seed)
    return 0


def train(name: str, way: str, seed: int) -> None:
    """Train as the command line does, and count by hooks what is asked of the networks.

    Raises:
        InputError: the run was begun before, so that its whole cost is not known.
        RuntimeError: training failed.
    """
    folder = place(RUNS, name, way, seed)
    if folder.exists():
        raise InputError(f"{folder} was begun before, and what that cost is not known: delete it to train anew.")
    began = time.process_time()
    with leaves() as passes:
        status = main.main(command(name, way, seed))
    if status:
        raise RuntimeError(f"training ended with status {status}")
    seconds = time.process_time() - began
    config = run_folder.Run(folder).config
    views = int(config["images"]) * int(config["settings"]["epochs"])
    out = place(RESULTS, name, way, seed)
    cost = {"image_gradients": passes["gradients"], "weight_gradients": views, "cpu_seconds": round(seconds, 1)}
    files.write_json(out / "cost.json", cost)
    files.write(out / "config.json", (folder / "config.json").read_bytes())


def pgd(name: str, way: str, seed: int) -> None:
    """PGD-20 with two restarts on cross-entropy, and again on the margin, every iterate judged."""
    threat = TASKS[name].threat
    attack = PGD(threat, 20, threat.radius / 8)
    suite = [
        Trial("PGD-20", attack, threat, restarts=2, run=stop_at_success),
        Trial("PGD-20 margin", replace(attack, loss=margin), threat, restarts=2, run=stop_at_success),
    ]
    judge(name, way, seed, swiftly(suite), TASKS[name].images)


def autoattack(name: str, way: str, seed: int) -> None:
    """AutoAttack in its standard form, computed with a folded fp32 copy; the pipeline itself gives the verdicts."""
    task = TASKS[name]
    suite = swiftly([Trial("AutoAttack", AutoAttack(task.threat, 10), task.threat)], "fp32")
    judge(name, way, seed, suite, task.autoattacked)


def judge(name: str, way: str, seed: int, suite: Suite, count: int) -> None:
    """Evaluate a run's whole pipeline, or the classifier alone; its records, once whole, are kept without digests."""
    task, out = TASKS[name], place(RESULTS, name, way, seed)
    mean, std = task.normalization
    find = Finder(lambda split: data.load(task.data, split), Path("runs"), mean=mean or None, std=std or None)
    guide = find.look_up(task.guide)
    model = EvaluatedModel(guide.name, guide.network)
    if way != ALONE:
        model = EvaluatedModel(guide.name, Defended(load(place(RUNS, name, way, seed)), guide.network), True, True)
    images = data.sample(data.load(task.data, "test"), count, seed=0)
    folder = out / suite[0].name.lower()
    if (folder / "summary.json").exists():
        raise InputError(f"{folder} was judged before: delete it to judge anew.")
    evaluate([model], images, suite, folder=folder, batch_size=task.batch)
    path = records.part(folder, 0)
    light = [replace(record, images=[]) for record in records.read(path)]
    files.write(path, b"".join(map(files.json_line, light)))


VERBS: dict[str, Callable[[str, str, int], None]] = {"train": train, "pgd": pgd, "autoattack": autoattack}

if __name__ == "__main__":
    sys.exit(main())
