"""Train and evaluate every run that has no result yet, the cheapest first.

usage: PYTHONPATH=src:. python -m benchmarks.keep_best.measure [--seeds 0 1 2] [--variants NAME ...] [--autoattack]

With --autoattack the runs are also evaluated by AutoAttack.

Trained networks go to runs/keep-best, costs and records to results/keep-best. What is finished is not repeated; a
training that was stopped starts over, so that its cost is known. Requires Fashion-MNIST in FOREFEND_DATA.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import time
from dataclasses import replace
from typing import Any

from safetensors.torch import load_file

from benchmarks.keep_best.protocol import (
    AUTOATTACK,
    DATA,
    FAST,
    GUIDE,
    IMAGES,
    RESULTS,
    RUNS,
    SEEDS,
    THREAT,
    VARIANTS,
    command,
    folder_of,
)
from benchmarks.speed.benchmarks.recipes import image_gradients
from forefend import data
from forefend.attacks.autoattack import AutoAttack
from forefend.cli import main as command_line
from forefend.evaluation import records
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites.fast import fast
from forefend.evaluation.trial import Suite, Trial
from forefend.models.defended import Defended
from forefend.models.defense import Defense, load
from forefend.runtime import files, run_folder
from forefend.training.resolve_classifiers import resolve_classifier


def main() -> int:
    """Measure what is missing, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--autoattack", action="store_true")
    given = parser.parse_args()
    suites = {FAST: fast(THREAT)}
    if given.autoattack:
        suites[AUTOATTACK] = [Trial("AutoAttack", AutoAttack(THREAT), THREAT)]
    for seed, name, (folder, suite) in itertools.product(given.seeds, given.variants, suites.items()):
        if not (folder_of(RESULTS, name, seed) / folder / "summary.json").exists():
            train(VARIANTS[name].last_of or name, seed)
            attack(name, seed, folder, suite)
    return 0


def train(name: str, seed: int) -> None:
    """Train by the command line, and count the gradients by hooks; nothing where that was done.

    Raises:
        RuntimeError: training failed.
    """
    folder, out = folder_of(RUNS, name, seed), folder_of(RESULTS, name, seed)
    if (out / "cost.json").exists() and (folder / "defense.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    guide()  # its training is no part of the cost
    began = time.process_time()
    with image_gradients() as passes:
        status = command_line.main(command(name, seed))
    if status:
        raise RuntimeError(f"training ended with status {status}")
    seconds = time.process_time() - began
    config = run_folder.Run(folder).config
    held = round(float(config.get("keep_best", 0)) * int(config["images"]))
    views = (int(config["images"]) - held) * int(config["settings"]["epochs"])
    views *= 3 if config.get("inner_attack") == "fgsm-pgi" else 1  # its regularizer passes both ends of the step
    cost = {"image_gradients": passes["gradients"], "weight_gradients": views, "cpu_seconds": round(seconds, 1)}
    files.write_json(out / "cost.json", cost)
    for file in ("config.json", "train.jsonl", "kept.json"):
        if (folder / file).exists():
            files.write(out / file, (folder / file).read_bytes())


def attack(name: str, seed: int, out: str, suite: Suite) -> None:
    """Evaluate a run, and keep the records without digests of images."""
    place = folder_of(RUNS, VARIANTS[name].last_of or name, seed)
    defense = load(place)
    if VARIANTS[name].last_of:
        prefix = "/trainables/preprocessor/networks/preprocessor/"
        stored = load_file(place / "checkpoint.safetensors")
        last = {key.removeprefix(prefix): tensor for key, tensor in stored.items() if key.startswith(prefix)}
        defense.preprocessor.load_state_dict(last)
        defense = Defense(defense.preprocessor, replace(defense.card, ema=None))
    network = guide().network
    model = EvaluatedModel(GUIDE, Defended(defense, network), True, True)
    images = data.sample(data.load(DATA, "test"), IMAGES, seed=0)
    folder = folder_of(RESULTS, name, seed) / out
    evaluate([model], images, suite, folder=folder, batch_size=100)
    path = folder / "records.jsonl"
    without_digests = [replace(record, images=[]) for record in records.read(path)]
    files.write(path, b"".join(map(files.json_line, without_digests)))
    for file in ("evaluation.json", "models.json"):  # trials and images are those of the protocol
        (folder / file).unlink()


def guide() -> Any:
    """Return the guide, which is trained where it does not exist."""
    return resolve_classifier(GUIDE, lambda split: data.load(DATA, split), train_missing=True)


if __name__ == "__main__":
    sys.exit(main())
