"""Train one variant with one seed, or evaluate the result.

usage: PYTHONPATH=src:. python -m benchmarks.parity.measure ACTION TASK VARIANT SEED

`train` writes runs/parity/TASK/VARIANT-sSEED. `pgd` and `autoattack` write records to a folder of the same name in
results/parity. Requires pyautoattack, and the data sets and published classifiers in FOREFEND_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from benchmarks.parity.protocol import ALONE, RESULTS, RUNS, SEEDS, TASKS, VARIANTS, command, folder_of
from benchmarks.speed.benchmarks.recipes import image_gradients
from forefend import data
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.cli import main as command_line
from forefend.evaluation import records
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.trial import Suite, Trial, with_copies
from forefend.losses import margin
from forefend.models.defended import Defended
from forefend.models.defense import load
from forefend.runtime import files, run_folder
from forefend.training.resolve_classifiers import resolve_classifier


def main() -> int:
    """Run one action, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("variant", choices=[*VARIANTS, ALONE])
    parser.add_argument("seed", type=int, choices=SEEDS)
    given = parser.parse_args()
    if given.variant not in TASKS[given.task].epochs and (given.action, given.variant) != ("pgd", ALONE):
        parser.error(f"{given.task} has no variant {given.variant!r} to {given.action}: see protocol.py")
    ACTIONS[given.action](given.task, given.variant, given.seed)
    return 0


def train(name: str, variant: str, seed: int) -> None:
    """Train by the command line, and count the gradients by hooks.

    Raises:
        InputError: the folder of the run exists, so that its whole cost is unknown.
        RuntimeError: training failed.
    """
    folder = folder_of(RUNS, name, variant, seed)
    if folder.exists():
        raise InputError(f"{folder} exists, and the cost of its first part is unknown: delete it to train again.")
    began = time.process_time()
    with image_gradients() as passes:
        status = command_line.main(command(name, variant, seed))
    if status:
        raise RuntimeError(f"training ended with status {status}")
    seconds = time.process_time() - began
    config = run_folder.Run(folder).config
    views = int(config["images"]) * int(config["settings"]["epochs"])
    out = folder_of(RESULTS, name, variant, seed)
    cost = {"image_gradients": passes["gradients"], "weight_gradients": views, "cpu_seconds": round(seconds, 1)}
    files.write_json(out / "cost.json", cost)
    files.write(out / "config.json", (folder / "config.json").read_bytes())


def pgd(name: str, variant: str, seed: int) -> None:
    """Evaluate under PGD-20 with two restarts, on the cross-entropy and on the margin, until success."""
    threat = TASKS[name].threat
    attack = PGD(threat, 20, threat.radius / 8)
    suite = [
        Trial("PGD-20", attack, threat, restarts=2, run=stop_at_success),
        Trial("PGD-20 margin", replace(attack, loss=margin), threat, restarts=2, run=stop_at_success),
    ]
    _evaluate(name, variant, seed, with_copies(suite), TASKS[name].images)


def autoattack(name: str, variant: str, seed: int) -> None:
    """Evaluate under standard AutoAttack on an optimized fp32 copy; the pipeline itself classifies the results."""
    task = TASKS[name]
    suite = with_copies([Trial("AutoAttack", AutoAttack(task.threat, 10), task.threat)], "fp32")
    _evaluate(name, variant, seed, suite, task.autoattacked)


def _evaluate(name: str, variant: str, seed: int, suite: Suite, count: int) -> None:
    """Evaluate the pipeline of a run, or the classifier alone, and keep the records without digests of images."""
    task, out = TASKS[name], folder_of(RESULTS, name, variant, seed)
    mean, std = task.normalization
    guide = resolve_classifier(
        task.guide, lambda split: data.load(task.data, split), mean=mean or None, std=std or None
    )
    model = EvaluatedModel(guide.name, guide.network)
    if variant != ALONE:
        defense = load(folder_of(RUNS, name, variant, seed))
        model = EvaluatedModel(guide.name, Defended(defense, guide.network), True, True)
    images = data.sample(data.load(task.data, "test"), count, seed=0)
    folder = out / suite[0].name.lower()
    if (folder / "summary.json").exists():
        raise InputError(f"{folder} contains an evaluation: delete it to evaluate again.")
    evaluate([model], images, suite, folder=folder, batch_size=task.batch)
    path = folder / "records.jsonl"
    without_digests = [replace(record, images=[]) for record in records.read(path)]
    files.write(path, b"".join(map(files.json_line, without_digests)))


ACTIONS: dict[str, Callable[[str, str, int], None]] = {"train": train, "pgd": pgd, "autoattack": autoattack}

if __name__ == "__main__":
    sys.exit(main())
