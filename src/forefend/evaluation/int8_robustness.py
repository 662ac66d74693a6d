"""Accuracy and robustness of an int8 file beside the network that it was quantized from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from forefend.attacks.pgd import PGD
from forefend.data import ImageDataset
from forefend.evaluation.access import Access, GradientOf, Surrogate
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.results import Results
from forefend.evaluation.trial import Trial
from forefend.losses import ce, margin
from forefend.models.classifiers import onnx_classifier
from forefend.threat_models.base import ThreatModel


def int8_robustness(
    model: EvaluatedModel,
    int8: Path,
    images: ImageDataset,
    threats: Sequence[ThreatModel],
    *,
    folder: Path,
    seed: int = 0,
) -> Results:
    """Attack a model in float32 and in int8, both with the gradient of float32, as int8 has none.

    Args:
        model: the float32 model; int8 has its name in tables, with `int8`.
        int8: the ONNX file that was quantized from it.
        images: test images.
        threats: threat models.
        folder: where the records and the summary go.
        seed: the seed of the random starts.
    """
    original = replace(model, name=f"{model.name} float32")
    small = replace(model, name=f"{model.name} int8", network=onnx_classifier(int8))
    trials = [trial for threat in threats for trial in float_gradient(threat, model.network, original.name)]
    return evaluate([original, small], images, trials, folder=folder, seed=seed, allow_weak=True)


def float_gradient(threat: ThreatModel, network: nn.Module, name: str) -> list[Trial]:
    """Return PGD-20 with the gradient of a network, for a model that answers almost as it does and has none.

    Images are crafted on the network alone, and, with two losses and two restarts, by steps of which the model itself
    judges every one.

    Args:
        threat: the threat model.
        network: the network whose gradient is used.
        name: its name in records.
    """
    attacks = {"": PGD(threat, 20, loss=ce), " margin": PGD(threat, 20, loss=margin)}
    crafted = Trial("PGD-20 crafted on float32", attacks[""], threat, access=Access(Surrogate(network, name)))
    through = Access(GradientOf(network, name))
    return [crafted] + [
        Trial(f"PGD-20{loss} by float32 gradient", attack, threat, restarts=2, access=through, run=stop_at_success)
        for loss, attack in attacks.items()
    ]
