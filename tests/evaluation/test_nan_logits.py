"""NaN and infinite logits are no verdict: every function that predicts a class names the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, toy_images
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.evaluation.certification.randomized_smoothing import certify
from forefend.evaluation.clean_accuracy import clean_accuracy
from forefend.evaluation.corruption_conditions import Condition
from forefend.evaluation.corruption_robustness import measure
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites import general
from forefend.threat_models.lp import Linf


class NanWhere(nn.Module):
    """A classifier whose logits of some images are NaN or infinite."""

    def __init__(self, broken: Callable[[Tensor], Tensor], value: float = float("nan")) -> None:
        super().__init__()
        self.broken, self.value, self.net = broken, value, classifier()

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.broken(x)[:, None], torch.full((), self.value), self.net(x))


IMAGES = toy_images(30).subset(torch.arange(0, 30))
FIRST_ROW = IMAGES.batch(torch.tensor([17]))[0][0]


def is_image_17(x: Tensor) -> Tensor:
    return (x - FIRST_ROW).abs().amax((1, 2, 3)) < 1e-6


def is_perturbed(x: Tensor) -> Tensor:
    clean, _, _ = IMAGES.batch(torch.arange(len(IMAGES)))
    return (x[:, None] - clean).abs().amax((2, 3, 4)).amin(1) > 1e-3


def corrupted(network: nn.Module, images: ImageDataset) -> Any:
    conditions = [Condition("none", 0, lambda: images), Condition("fog", 1, lambda: images, lambda x, rng: 0.5 * x)]
    return measure([EvaluatedModel("net", network)], conditions)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "judge",
    [
        lambda network: evaluate(network, IMAGES, [], allow_weak=True),
        lambda network: corrupted(network, IMAGES),
        lambda network: clean_accuracy("net", network, IMAGES),
    ],
    ids=["evaluate", "corruptions", "clean_accuracy"],
)
def test_nan_logits_of_a_clean_image_raise(judge: Callable[[nn.Module], Any], value: float) -> None:
    with pytest.raises(InputError, match="logits of image 17 of the data"):
        judge(NanWhere(is_image_17, value).eval())


@pytest.mark.parametrize(
    "judge",
    [
        lambda network: evaluate(network, IMAGES, general.curve([Linf(0.1)]), allow_weak=True),
        lambda network: evaluate(network, IMAGES, general.quick(Linf(0.1)), allow_weak=True),
        lambda network: corrupted(network, IMAGES),
        lambda network: certify(network, IMAGES, sigma=0.25, n=20, n0=10, alpha=0.1),
    ],
    ids=["PGD", "quick", "corruptions", "certify"],
)
def test_nan_logits_of_a_changed_image_raise(judge: Callable[[nn.Module], Any]) -> None:
    with pytest.raises(InputError, match=r"of image \d+ "):
        judge(NanWhere(is_perturbed).eval())
