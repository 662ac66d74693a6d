"""What each recipe promises, kept on real handwritten digits with a budget of seconds."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import train

from forefend import data, preprocessors
from forefend.defence import Defended
from forefend.evaluation import Subject, evaluate
from forefend.guides import Guide
from forefend.named import new_classifier
from forefend.recipe import Cast
from forefend.recipes import RTFE, Adversarial, Natural
from forefend.suites import curve
from forefend.threat import Linf

THREAT = Linf(0.2)


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    """A naturally trained classifier of digits."""
    digits = data.load("digits", "train")
    return train(Natural(epochs=8), digits, Cast(classifier=new_classifier("cnn", digits, 0))).classifier.eval()


def accuracies(network: nn.Module) -> tuple[float, float]:
    """On 200 clean test images, and under white-box PGD."""
    images = data.sample(data.load("digits", "test"), 200, 0)
    cells = evaluate([Subject("it", network)], images, curve([THREAT], steps=10, restarts=1), allow_weak=True)
    return cells[0].accuracy, cells[1].accuracy


def test_natural_training_reaches_a_high_clean_accuracy(natural: nn.Module) -> None:
    clean, attacked = accuracies(natural)
    assert clean > 0.9
    assert attacked < 0.15


def test_adversarial_training_raises_its_classifiers_robust_accuracy(natural: nn.Module) -> None:
    digits = data.load("digits", "train")
    recipe = Adversarial(THREAT, steps=3, relative_step=0.5, epochs=5, batch_size=64, lr=0.05)
    network = train(recipe, digits, Cast(classifier=new_classifier("cnn", digits, 0))).classifier.eval()
    clean, attacked = accuracies(network)
    assert clean > 0.8
    assert attacked > accuracies(natural)[1] + 0.25


def test_rtfe_raises_a_guides_robust_accuracy(natural: nn.Module) -> None:
    digits = data.load("digits", "train")
    torch.manual_seed(0)
    network = preprocessors.build("narrow-unet", channels=1, widths=[12, 24], depths=[2, 2])
    recipe = RTFE(THREAT, steps=3, relative_step=0.5, epochs=5, batch_size=64)
    train(recipe, digits, Cast(network, [Guide(natural)]))
    clean, attacked = accuracies(Defended(network.eval(), natural))
    assert clean > 0.7
    assert attacked > accuracies(natural)[1] + 0.25
