"""A small run with everything that an evidence page shows, made in seconds."""

from __future__ import annotations

from pathlib import Path

from helpers.toy_networks import CLASSES, toy_images, trained_classifier
from torch import nn

from forefend import data
from forefend.attacks.pgd import PGD
from forefend.data import ImageDataset
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import with_and_without
from forefend.evaluation.gradient_masking.check_report import FAILED, PASSED, SKIPPED, CheckReport, CheckResult
from forefend.evaluation.transferability.matrix import DEFENDED, TransferMatrix, cell_of
from forefend.evaluation.trial import Trial
from forefend.models import preprocessors
from forefend.models.defense import Defense, DefenseCard
from forefend.models.fingerprint import fingerprint
from forefend.runtime import run_folder
from forefend.runtime.files import write_versioned
from forefend.threat_models.lp import Linf

RADII = (0.1, 0.2, 0.25)
NAMES = tuple(f"sort {number}" for number in range(CLASSES))


def make(folder: Path, classes: tuple[str, ...] = NAMES) -> Path:
    """Evaluate a toy classifier alone and behind the identity-like defense of a run; return the folder of the run.

    Args:
        folder: where the run goes.
        classes: the names of the classes.
    """
    config = {"recipe": "rtfe", "settings": {"threat": "Linf:0.2", "epochs": 1}, "data": "toy", "images": 40, "seed": 3}
    run = run_folder.start(folder, config)
    run.log(epoch=1, step=4, loss={"preprocessor": 0.5})
    defense().save(folder)
    models = with_and_without(defense(), "cnn", trained_classifier())
    evaluate(models, images(classes), suite(), folder=folder, pictures=3)
    return folder


def images(classes: tuple[str, ...] = NAMES) -> ImageDataset:
    """Toy images, with names of their classes."""
    x, y, _ = toy_images(split="test").batch(toy_images().index)
    return data.from_tensors("toy", x, y, classes=classes, split="test")


def suite() -> list[Trial]:
    """PGD at three radii, and a second loss at one of them."""
    attacks = [Trial("PGD-3", PGD(Linf(radius), 3, radius), Linf(radius), run=stop_at_success) for radius in RADII]
    return [*attacks, Trial("PGD-5", PGD(Linf(0.2), 5, 0.1), Linf(0.2))]


def defense() -> Defense:
    """A preprocessor that changes little, and has the classifier as its guide."""
    settings = {"channels": 1, "depth": 3, "width": 4}
    network = preprocessors.build("dncnn", **settings)
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.02)
    guide = {"name": "cnn", "fingerprint": fingerprint(trained_classifier())}
    return Defense(network, DefenseCard("dncnn", settings, "Linf:0.2", "rtfe", "toy", [guide])).eval()


def add(folder: Path) -> None:
    """Add checks, a transfer matrix and latencies to a run; they are made up."""
    checks = [
        CheckResult("input gradients are not zero", "zero for 0.0 %", "at most 2 of 40", PASSED, "advice 1"),
        CheckResult("random noise does not beat attacks", "noise breaks 9.0 %", "at most 1 of 40", FAILED, "advice 2"),
        CheckResult("BPDA does not beat white-box attacks", "not run", "at most 1 of 40", SKIPPED, "advice 3"),
    ]
    CheckReport(checks, "cnn", "Linf:0.2", 40, defense=defense().identity()).save(folder / "check/check.json")
    rows = [("", "", ""), ("PGD-20", "cnn", ""), ("PGD-20", "cnn", DEFENDED), ("PGD-20", "other", DEFENDED)]
    cells = [
        cell_of(row, name, name == "cnn", [place + number < 5 for place in range(20)])
        for number, row in enumerate(rows)
        for name in ("cnn", "other")
    ]
    matrix = TransferMatrix(cells, "Linf:0.2", 0, {"defense": "rtfe defense", "data": "toy"})
    matrix.save(folder / "transfer/toy")
    one = {"name": "cnn", "milliseconds": {"1": 0.5, "32": 0.1}, "parameters": 12345, "weights": 0.05, "memory": 1.25}
    write_versioned(folder / "latency.json", {"models": [one | {"device": "cpu", "threads": 1}]})
