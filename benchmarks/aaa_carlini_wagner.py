"""Measure the readings of AAA's Carlini-Wagner attack on a natural MNIST classifier; writes results/aaa-cw.

usage: FOREFEND_DATA=... python -m benchmarks.aaa_carlini_wagner

About 40 seconds on one core.
"""

from __future__ import annotations

import os
from pathlib import Path

import forefend as ff

WEIGHTS = "classifiers/secml-mnist-smallcnn.pth"
IMAGES = 100


def main() -> None:
    """Evaluate both readings on 100 test images drawn with seed 0."""
    spec = f"smallcnn:{Path(os.environ['FOREFEND_DATA']) / WEIGHTS}"
    classifier = ff.resolve_classifier(spec, lambda split: ff.data.load("mnist", split), mean=[0.0], std=[1.0])
    images = ff.data.sample(ff.data.load("mnist", "test"), IMAGES, 0)
    model = ff.EvaluatedModel("smallcnn", classifier.network)
    print(ff.evaluate(model, images, ff.suites.aaa_carlini_wagner()[:2], folder="results/aaa-cw"))


if __name__ == "__main__":
    main()
