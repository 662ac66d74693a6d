"""Cost of a recipe: each trains on handwritten digits; gradients and operations are count_compute."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.speed.results import Figure, Measured, Point, Setup, Work, figure
from forefend import data
from forefend.attacks.pgd import PGD
from forefend.data import ImageDataset, sample
from forefend.models import discriminators, preprocessors
from forefend.models.defended import Defended
from forefend.models.freezing import frozen
from forefend.models.guide import Guide
from forefend.models.initialization import initialized, new_classifier
from forefend.recipes import RECIPES, TRADES, Natural
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.transfer import with_new_head
from forefend.runtime.distributed import accelerator_on
from forefend.runtime.profiling import count_compute
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf
from forefend.training.trainer import fit

NAME = "recipes"
QUICK = ("natural", "adversarial", "rtfe")
OURS = "ours"
AGAINST = "adversarial"  # Madry et al.: a classifier trained on adversarial images
THREAT = Linf(0.15)
IMAGES, TESTED = 600, 200
GIVEN = {"threat": THREAT, "batch_size": 50, "steps": 7}  # the other hyper-parameters are the recipe's defaults
TRAINED = ("jat", "jatp-prime")  # train a classifier together with the preprocessor
CLASSIFIERS = ("adversarial", "mart", "mma", "mma-simple", "natural", "trades", "transfer")
EPOCHS = 6


def points(quick: bool) -> list[Point]:
    """Return every recipe; three of them for a quick run."""
    return [Point(NAME, name, OURS) for name in (QUICK if quick else RECIPES)]


def work(case: str) -> Work:
    """Train with a recipe, count, and attack the result once, because all rounds would agree."""
    found = _trained(case, small(case), sample(data.load("digits", "train"), IMAGES, seed=0))
    return lambda: found


def small(name: str) -> Recipe:
    """Return a recipe with few epochs and our threat model."""
    recipe = RECIPES[name]
    names = {f.name for f in fields(recipe)}  # type: ignore[arg-type]
    return recipe(**{k: v for k, v in GIVEN.items() if k in names}, epochs=EPOCHS)  # type: ignore[call-arg]


def _trained(name: str, recipe: Recipe, images: ImageDataset) -> dict[str, float]:
    """Return the cost of a training run, and the accuracies of the result."""
    networks = networks_of(name, images)
    with contextlib.redirect_stderr(io.StringIO()), image_gradients() as passes:
        cost = count_compute(lambda: fit(recipe, images, networks, accelerator=accelerator_on()))
    network = frozen(_result(name, networks)).cpu()
    x, y, index = sample(data.load("digits", "test"), TESTED, seed=0).batch(torch.arange(TESTED))
    x_adv = PGD(THREAT, 20, THREAT.radius / 8)(network, x, y, rng=KeyedRNG(index))
    with torch.no_grad():
        clean, robust = (float((network(seen).argmax(1) == y).float().mean()) for seen in (x, x_adv))
    views = len(images) * EPOCHS
    return {
        "seconds": cost.seconds,
        "tflops": cost.flops / 1e12,
        "gradients": passes["gradients"] / views,
        "clean": clean,
        "robust": robust,
    }


@contextmanager
def image_gradients() -> Iterator[dict[str, int]]:
    """Count the gradients with respect to images, in any network or copy.

    An image is a leaf of the graph that requires a gradient; features between two networks are no leaves.
    """
    passes = {"gradients": 0}

    def backward(gradient: Tensor) -> None:
        passes["gradients"] += len(gradient)

    def forward(module: nn.Module, inputs: Any) -> None:
        for x in inputs if isinstance(inputs, tuple) else ():
            if isinstance(x, Tensor) and x.is_leaf and x.requires_grad and x.ndim == 4 and not hasattr(x, "_counted"):
                x._counted = True  # type: ignore[attr-defined]
                x.register_hook(backward)

    hook = register_module_forward_pre_hook(forward)
    try:
        yield passes
    finally:
        hook.remove()


def networks_of(name: str, images: ImageDataset) -> Networks:
    """Return new networks for a recipe; the cost excludes the training of its guides."""
    channels, size, _ = images.shape
    classifier: nn.Module = (
        nn.Identity() if name not in (*CLASSIFIERS, *TRAINED) else new_classifier("tinyresnet", images, 1)
    )
    if name == "transfer":
        classifier = initialized(partial(with_new_head, copy.deepcopy(guide(Natural)), len(images.classes)), 0)
    if name in CLASSIFIERS:
        return Networks(classifier=classifier)
    front = initialized(partial(preprocessors.build, "narrow-unet", channels=channels), 0)
    discriminator = initialized(partial(discriminators.build, "ape-gan", channels=channels, size=size), 0)
    guides = [] if name in TRAINED else [Guide(guide(TRADES if name == "jatp" else Natural), "guide")]
    return Networks(front, guides, classifier, discriminator if name in ("ape-gan", "nrp") else nn.Identity())


@cache
def guide(recipe: Callable[..., Recipe]) -> nn.Module:
    """Train a classifier of digits, natural or robust."""
    images = sample(data.load("digits", "train"), IMAGES, seed=0)
    network = new_classifier("tinyresnet", images, 0)
    threat = {"threat": THREAT} if recipe is TRADES else {}
    with contextlib.redirect_stderr(io.StringIO()):
        fit(
            recipe(epochs=8, batch_size=50, **threat),
            images,
            Networks(classifier=network),
            accelerator=accelerator_on(),
        )
    return network.eval().cpu()


def _result(name: str, networks: Networks) -> nn.Module:
    """Return the trained pipeline, from images to logits."""
    if name in CLASSIFIERS:
        return networks.classifier
    return Defended(networks.preprocessor, networks.guides[0] if networks.guides else networks.classifier)


IMPLEMENTATIONS: Mapping[str, Setup] = {OURS: work}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare the operations with those of adversarial training, and give both robust accuracies."""
    for point in measured:
        other = Point(NAME, AGAINST, OURS)
        if other in measured:
            own, its = measured[point][0], measured[other][0]
            achieved = {key: own[key] for key in ("clean", "robust", "gradients", "tflops")}
            yield figure(measured, point, other, unit="tflops", **achieved, robust_against=its["robust"])
