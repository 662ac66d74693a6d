"""An evaluation in a process of its own (`torchrun evaluator.py FOLDER IMAGES`): one of two, or to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers.torchrun import fail_unless_parted
from helpers.toy_networks import classifier, toy_images

from forefend import data
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.results import Result
from forefend.evaluation.suites import general
from forefend.threat_models.lp import Linf


def evaluated(folder: Path, images: int) -> list[Result]:
    """FGSM and PGD on a toy classifier, in batches of eight."""
    whole = toy_images(60)
    some = data.sample(whole, images, seed=0)
    return evaluate(classifier(), some, general.quick(Linf(0.2)), folder=folder, batch_size=8, allow_weak=True)


if __name__ == "__main__":
    fail_unless_parted()
    evaluated(Path(sys.argv[1]), int(sys.argv[2]))
