"""What each recipe promises, kept on real handwritten digits with a budget of seconds.

The promises here are small: they tell a recipe that works from one that does not, not how well it does.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.toy_networks import train
from torch import nn

from forefend import data
from forefend.attacks.pgd import PGD
from forefend.data import ImageDataset
from forefend.evaluation.access import Access, oblivious
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites.general import curve
from forefend.evaluation.trial import Trial
from forefend.models import discriminators, preprocessors
from forefend.models.defended import Defended
from forefend.models.guide import Guide
from forefend.models.initialization import new_classifier
from forefend.recipes import (
    AAA,
    APEGAN,
    HGD,
    JAT,
    JATP,
    MART,
    MMA,
    NRP,
    RTFE,
    TRADES,
    Adversarial,
    DenoisedSmoothing,
    JATPPrime,
    MMASimple,
    Natural,
    Robustifier,
    Transfer,
)
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.denoised_smoothing import stability
from forefend.recipes.hgd import logit
from forefend.recipes.transfer import with_new_head
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

THREAT = Linf(0.2)
INNER = {"threat": THREAT, "steps": 3, "relative_step": 0.5}
BUDGET = {"epochs": 5, "batch_size": 64}


def digits(split: str = "train") -> ImageDataset:
    return data.load("digits", split)


def slow_but_the_first(recipes: list[Recipe]) -> list[Any]:
    first, *others = recipes
    slow = [pytest.param(recipe, id=type(recipe).__name__, marks=pytest.mark.slow) for recipe in others]
    return [pytest.param(first, id=type(first).__name__), *slow]


@pytest.fixture(scope="module")
def natural() -> nn.Module:
    """A naturally trained classifier of digits."""
    return train(Natural(epochs=8), digits(), Networks(classifier=new_classifier("cnn", digits(), 0))).classifier.eval()


def unet() -> nn.Module:
    torch.manual_seed(0)
    return preprocessors.build("narrow-unet", channels=1, widths=[12, 24], depths=[2, 2])


def accuracies(network: nn.Module, suite: list[Trial] | None = None) -> tuple[float, float]:
    """On 200 clean test images, and under an attack: white-box PGD if none is given."""
    images = data.sample(digits("test"), 200, 0)
    suite = curve([THREAT], steps=10, restarts=1) if suite is None else suite
    cells = evaluate([EvaluatedModel("it", network)], images, suite, allow_weak=True)
    return cells[0].accuracy, cells[1].accuracy


def test_natural_training_reaches_a_high_clean_accuracy(natural: nn.Module) -> None:
    clean, attacked = accuracies(natural)
    assert clean > 0.9
    assert attacked < 0.15


OWN: list[Recipe] = [
    Adversarial(**INNER, **BUDGET, lr=0.05),
    MART(**INNER, epochs=15, batch_size=32, lr=0.01),
    MMA(threat=THREAT, epochs=12, batch_size=64, lr=0.1, steps=4, relative_step=0.6, bisections=6),
    MMASimple(**INNER, **BUDGET, lr=0.05),
    TRADES(**INNER, **BUDGET, lr=0.05),
]


@pytest.mark.parametrize("recipe", slow_but_the_first(OWN))
def test_robust_training_raises_robust_accuracy(recipe: Recipe, natural: nn.Module) -> None:
    network = train(recipe, digits(), Networks(classifier=new_classifier("cnn", digits(), 0))).classifier.eval()
    clean, attacked = accuracies(network)
    assert clean > 0.8
    assert attacked > accuracies(natural)[1] + 0.25


BEHIND: list[Recipe] = [
    RTFE(**INNER, **BUDGET),
    AAA(**INNER, **BUDGET, mse_weight=1.0, lr=3e-3),
    JATP(**INNER, **BUDGET, lr=0.05, beta=0.3),
    Robustifier(**INNER, **BUDGET, alpha=0.1, beta=1.0, gamma=10.0, lr=0.05),
]


@pytest.mark.parametrize("recipe", slow_but_the_first(BEHIND))
def test_preprocessor_raises_robust_accuracy_of_its_guide(recipe: Recipe, natural: nn.Module) -> None:
    network = train(recipe, digits(), Networks(unet(), [Guide(natural)])).preprocessor.eval()
    clean, attacked = accuracies(Defended(network, natural))
    assert clean > 0.7
    assert attacked > accuracies(natural)[1] + 0.25


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [JAT, JATPPrime])
def test_joint_training_raises_robust_accuracy(recipe: type[JAT], natural: nn.Module) -> None:
    networks = Networks(unet(), classifier=new_classifier("cnn", digits(), 0))
    # Two networks from scratch take five epochs to begin with: how far they get in so few is a matter of rounding.
    networks = train(recipe(**INNER, epochs=12, batch_size=64, lr=0.05, beta=0.3), digits(), networks)
    clean, attacked = accuracies(Defended(networks.preprocessor.eval(), networks.classifier))
    assert clean > 0.9
    assert attacked > accuracies(natural)[1] + 0.25


@pytest.mark.slow
def test_adversarial_transfer_raises_robust_accuracy(natural: nn.Module) -> None:
    robust = []
    for steps in (0, 3):
        recipe = Transfer(threat=THREAT, steps=steps, relative_step=0.5, epochs=6, batch_size=64, lr=0.05)
        torch.manual_seed(0)
        network = train(recipe, digits(), Networks(classifier=with_new_head(natural, 10))).classifier.eval()
        clean, attacked = accuracies(network)
        assert clean > 0.85
        robust.append(attacked)
    assert robust[1] > robust[0] + 0.25


def oblivious_pgd() -> list[Trial]:
    return [Trial("oblivious", PGD(THREAT, 10, 0.05), THREAT, access=Access(oblivious))]


OBLIVIOUS: list[Recipe] = [
    HGD(**INNER, **BUDGET, guidance=logit),
    APEGAN(**INNER, epochs=15, batch_size=64, lr=1e-3),
    NRP(**INNER, epochs=10, batch_size=64, lr=1e-3),
]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OBLIVIOUS, ids=lambda r: type(r).__name__)
def test_oblivious_baseline_resists_oblivious_attacks_alone(recipe: Recipe, natural: nn.Module) -> None:
    torch.manual_seed(0)
    discriminator = discriminators.build("nrp" if isinstance(recipe, NRP) else "ape-gan", channels=1, size=8)
    networks = train(recipe, digits(), Networks(unet(), [Guide(natural)], discriminator=discriminator))
    assert all(p.isfinite().all() for network in (networks.preprocessor, discriminator) for p in network.parameters())
    defended = Defended(networks.preprocessor.eval(), natural)
    clean, attacked = accuracies(defended, oblivious_pgd())
    white = accuracies(defended)[1]
    assert clean > 0.7
    assert attacked > accuracies(natural)[1] + 0.3
    assert white < attacked - 0.2


@pytest.mark.slow
def test_denoised_smoothing_lowers_the_error_under_noise(natural: nn.Module) -> None:
    images = digits("test")
    x, y, index = images.batch(torch.arange(len(images)))
    noisy = x + 0.4 * KeyedRNG(index, 1, "noise").normal(x)

    def accuracy(f: nn.Module) -> float:
        with torch.no_grad():
            return float((f(noisy).argmax(1) == y).float().mean())

    for more in ({}, {"objective": stability}):
        recipe = DenoisedSmoothing(sigma=0.4, epochs=8, batch_size=64, lr=3e-3, **more)
        networks = train(recipe, digits(), Networks(unet(), [Guide(natural)]))
        assert accuracy(Defended(networks.preprocessor.eval(), natural)) > accuracy(natural) + 0.1
