"""An evaluation in its own process, `torchrun evaluation_process.py FOLDER IMAGES`: one of two, or killed."""

from __future__ import annotations

import sys
from pathlib import Path

from helpers.torchrun import fail_unless_parted
from helpers.toy_networks import classifier, toy_images

from forefend import data
from forefend.evaluation.certification.certificate import Certificates
from forefend.evaluation.certification.randomized_smoothing import certify
from forefend.evaluation.corruption_results import CorruptionResults
from forefend.evaluation.corruption_robustness import corruptions
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.results import Results
from forefend.evaluation.suites import general
from forefend.threat_models.lp import Linf


def evaluated(folder: Path, images: int) -> Results:
    """FGSM and PGD on a toy classifier, in batches of eight."""
    whole = toy_images(60)
    some = data.sample(whole, images, seed=0)
    return evaluate(classifier(), some, general.quick(Linf(0.2)), folder=folder, batch_size=8, allow_weak=True)


def certified(folder: Path | None, batch_size: int = 50) -> Certificates:
    """Certificates of a toy classifier on eight images."""
    return certify(classifier(), toy_images(8), n=60, n0=20, alpha=0.01, folder=folder, batch_size=batch_size)


def corrupted(folder: Path | None, batch_size: int = 3) -> CorruptionResults:
    """A toy classifier on eight images under two corruptions."""
    names = ["contrast", "gaussian_noise"]
    return corruptions(
        classifier(), toy_images(8), corruptions=names, severities=[1, 5], folder=folder, batch_size=batch_size
    )


if __name__ == "__main__":
    fail_unless_parted()
    evaluated(Path(sys.argv[1]), int(sys.argv[2]))
    certified(Path(sys.argv[1]) / "certificates")
    corrupted(Path(sys.argv[1]) / "corruptions")
