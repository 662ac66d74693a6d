"""Train and evaluate every run that has no result yet, the cheapest first.

usage: PYTHONPATH=src:. python -m benchmarks.keep_best.measure [--seeds 0 1 2] [--variants NAME ...]

Trained networks go to runs/keep-best, costs and records to results/keep-best. What is finished is not repeated; a
training that was stopped starts over, so that its cost is known. Requires Fashion-MNIST in FOREFEND_DATA.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.keep_best.protocol import (
    DATA,
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
from forefend.attacks.auto_pgd import APGD, targeted_dlr
from forefend.attacks.pgd import PGD
from forefend.cli import main as command_line
from forefend.evaluation import records
from forefend.evaluation.access import Access
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.trial import Cascade, Trial
from forefend.losses import margin
from forefend.models.defense import Defended, Defense, load
from forefend.runtime import files, run_folder
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.training.resolve_classifiers import resolve_classifier


@dataclass(frozen=True)
class Targeted:
    """APGD towards each of the likeliest classes but the label, on the images that resisted the ones before.

    Args:
        threat: threat model.
        steps: gradients for each class.
        targets: number of classes.
    """

    threat: ThreatModel
    steps: int = 30
    targets: int = 3

    def __str__(self) -> str:
        return f"APGD-{self.steps} towards {self.targets} classes({self.threat})"

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Return the adversarial images, and the last attempt where none was found."""
        attack, x_adv = APGD(self.threat, self.steps, loss=targeted_dlr), x.clone()
        with torch.no_grad():
            others = f(x).scatter(1, target[:, None], -torch.inf).argsort(1, descending=True)
        left = torch.arange(len(x), device=x.device)
        for rank in range(self.targets):
            pair = torch.stack((target[left], others[left, rank]), 1)
            x_adv[left] = attack(f, x[left], pair, rng=rng.select(left).fold_in(restart=rank))
            with torch.no_grad():
                left = left[f(x_adv[left]).argmax(1) == target[left]]
            if not len(left):
                break
        return x_adv


def main() -> int:
    """Measure what is missing, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    for seed in given.seeds:
        for name in given.variants:
            if not (folder_of(RESULTS, name, seed) / "records" / "summary.json").exists():
                train(VARIANTS[name].last_of or name, seed)
                attack(name, seed)
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


def attack(name: str, seed: int) -> None:
    """Evaluate a run under PGD, APGD and targeted APGD, and keep the records without digests of images."""
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
    folder = folder_of(RESULTS, name, seed) / "records"
    evaluate([model], images, suite(), folder=folder, batch_size=250)
    path = folder / "records.jsonl"
    without_digests = [replace(record, images=[]) for record in records.read(path)]
    files.write(path, b"".join(map(files.json_line, without_digests)))
    for file in ("evaluation.json", "models.json"):  # trials and images are those of the protocol
        (folder / file).unlink()


def suite() -> list[Trial]:
    """Return the attacks, each on the images that the ones before did not break."""
    pgd, bf16 = PGD(THREAT, 20, THREAT.radius / 8), Access(precision="bf16")
    stages = (
        Trial("PGD-20", pgd, THREAT, access=bf16, run=stop_at_success),
        Trial("PGD-20 margin", replace(pgd, loss=margin), THREAT, access=bf16, run=stop_at_success),
        Trial("APGD-50", APGD(THREAT, 50), THREAT, access=bf16, run=stop_at_success),
    )
    return [Trial("PGD, APGD, targeted APGD", Targeted(THREAT), THREAT, run=Cascade(stages))]


def guide() -> Any:
    """Return the guide, which is trained where it does not exist."""
    return resolve_classifier(GUIDE, lambda split: data.load(DATA, split), train_missing=True)


if __name__ == "__main__":
    sys.exit(main())
