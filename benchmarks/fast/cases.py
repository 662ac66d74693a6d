"""The cases: classifier or pipeline, images and threat model of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from benchmarks.peers.comparisons import COMPARISONS, published_classifier
from forefend import data
from forefend.data import ImageDataset
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.models.classifiers.model_card import load_card
from forefend.models.defended import Defended
from forefend.models.defense import load
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

RUNS = Path("runs/fast")
GUIDE, TRAINED, PIPELINE = (RUNS / name for name in ("fashion-cnn", "fashion-adversarial", "fashion-pipeline"))
CIFAR_PIPELINE, CIFAR_GUIDE = RUNS / "cifar-pipeline", "akamaster-cifar10-resnet20"


@dataclass(frozen=True)
class Case:
    """One model under one threat model.

    Args:
        images: name of the data set; its test images are attacked.
        threat: of the attacks.
        model: returns what is attacked.
    """

    images: str
    threat: ThreatModel
    model: Callable[[], EvaluatedModel]

    def sample(self, count: int, seed: int = 0) -> ImageDataset:
        """Return a stratified sample of test images, the same everywhere."""
        return data.sample(data.load(self.images, "test"), count, seed=seed)


def _published(name: str) -> Case:
    chosen = COMPARISONS[name]
    title = Path(chosen.weights).stem
    return Case(chosen.images, chosen.threat, lambda: EvaluatedModel(title, chosen.classifier()))


def _classifier(folder: Path) -> nn.Module:
    return load_card(folder / "classifier.json")


def _pipeline() -> EvaluatedModel:
    network = Defended(load(PIPELINE), _classifier(GUIDE))
    return EvaluatedModel("fashion-cnn", network, defended=True, seen=True)


def _cifar_pipeline() -> EvaluatedModel:
    classifier = published_classifier("resnet20", f"{CIFAR_GUIDE}.th", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return EvaluatedModel(CIFAR_GUIDE, Defended(load(CIFAR_PIPELINE), classifier), defended=True, seen=True)


CASES = {
    **{name: _published(name) for name in ("trades-mnist", "fastat-mnist", "resnet4b-cifar", "convex-fashion")},
    "adversarial-fashion": Case(
        "fashion-mnist", Linf(0.2), lambda: EvaluatedModel("adversarial-fashion", _classifier(TRAINED))
    ),
    "pipeline-fashion": Case("fashion-mnist", Linf(0.2), _pipeline),
    "resnet4b-cifar-l2": _published("resnet4b-cifar-l2"),
    "pipeline-cifar": Case("cifar-10", Linf(1 / 255), _cifar_pipeline),
}
