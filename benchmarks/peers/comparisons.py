"""The comparisons: classifier, images, threat model and steps of each.

All classifiers are published ones, and all but the last were trained to be robust. The radii leave an accuracy between
0 and 100 %, where two attacks can disagree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from forefend import data
from forefend.attacks.pgd import PGD, Start
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.freezing import frozen
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

Pixel = float | Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """One classifier under one threat model.

    Args:
        weights: file in `$FOREFEND_DATA/classifiers`.
        architecture: of the classifier.
        images: name of the data set; its test images are attacked.
        threat: threat model of the attacks.
        steps: of the attacks.
        step_size: in the norm of the threat model.
        mean: mean of the normalization.
        std: standard deviation of the normalization.
    """

    weights: str
    architecture: str
    images: str
    threat: ThreatModel
    steps: int
    step_size: float
    mean: Pixel = 0.0
    std: Pixel = 1.0

    def classifier(self) -> nn.Module:
        """Return the classifier in eval mode, from images in [0, 1] to logits, with frozen parameters."""
        return published_classifier(self.architecture, self.weights, self.mean, self.std)

    def sample(self, count: int) -> data.ImageDataset:
        """Return a stratified sample of test images, the same in every environment."""
        return data.sample(data.load(self.images, "test"), count, seed=0)

    def attack(self, start: Start) -> PGD:
        """Return our attack, whose settings the baselines take over."""
        return PGD(self.threat, self.steps, self.step_size, start=start)


def published_classifier(architecture: str, weights: str, mean: Pixel, std: Pixel) -> nn.Module:
    """Return a published classifier in eval mode, from images in [0, 1] to logits, with frozen parameters."""
    path = Path(os.environ.get("FOREFEND_DATA", ".data")) / "classifiers" / weights
    return frozen(load_weights(architecture, path, mean=mean, std=std))


RESNET4B, RESNET20 = "abcrown-cifar10-resnet4b-robust.pth", "chenyaofo-cifar10-resnet20.pth"
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
STD_4B, STD_20 = (0.2471, 0.2435, 0.2616), (0.2023, 0.1994, 0.2010)
L2_HALF, ONE, TWO = L2(0.5), Linf("1/255"), Linf("2/255")
COMPARISONS = {
    "trades-mnist": Comparison("trades-mnist-smallcnn-robust.pt", "smallcnn", "mnist", Linf(0.3), 40, 0.01),
    "fastat-mnist": Comparison("fastat-mnist-fgsm-robust.pth", "fastat", "mnist", Linf(0.3), 40, 0.01),
    "convex-fashion": Comparison("convex-fashion-certified.pth", "fastat", "fashion-mnist", Linf(0.1), 40, 0.01),
    "resnet4b-cifar": Comparison(RESNET4B, "resnet4b", "cifar-10", TWO, 40, 0.5 / 255, CIFAR_MEAN, STD_4B),
    "resnet4b-cifar-l2": Comparison(RESNET4B, "resnet4b", "cifar-10", L2_HALF, 40, 0.05, CIFAR_MEAN, STD_4B),
    "resnet20-cifar": Comparison(RESNET20, "resnet20", "cifar-10", ONE, 5, 0.5 / 255, CIFAR_MEAN, STD_20),
}
