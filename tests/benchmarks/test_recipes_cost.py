"""The benchmark of recipes: the gradient of an image counts once, in any network."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from helpers.toy_networks import toy_cast, toy_images, with_roles_of
from torch import nn

from benchmarks.speed.benchmarks import recipes
from benchmarks.speed.results import Point
from forefend.attacks.base import input_gradient
from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce
from forefend.models.defended import pipelines
from forefend.recipes import RECIPES, RTFE
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit


def test_image_gradients_of_an_ensemble_count_once() -> None:
    networks = toy_cast()
    x, y, index = toy_images(8).batch(torch.arange(8))
    with recipes.image_gradients() as passes:
        PGD(Linf(0.1), 3, 0.05, loss=Mean(ce))(
            pipelines(networks.preprocessor, networks.guides), x, y, rng=KeyedRNG(index)
        )
    assert passes["gradients"] == 3 * 8
    input_gradient(networks.classifier, x, y, ce)
    assert passes["gradients"] == 3 * 8  # counting has ended


def test_image_gradients_without_preprocessor_count_once() -> None:
    networks = toy_cast()
    x, y, _ = toy_images(8).batch(torch.arange(8))
    with recipes.image_gradients() as passes:
        input_gradient(pipelines(nn.Identity(), networks.guides), x, y, Mean(ce))
        input_gradient(lambda z: [guide(z) for guide in networks.guides], x, y, Mean(ce))
    assert passes["gradients"] == 2 * 8


@pytest.mark.parametrize("precision", [None, "fp32"])
def test_image_gradients_of_fit_exclude_the_training_step(precision: str | None) -> None:
    config = TrainingConfig(attack_copy=precision)
    with recipes.image_gradients() as passes:
        recipe = RTFE(threat=Linf(0.1), steps=4, epochs=2, batch_size=8)
        fit(recipe, toy_images(16), with_roles_of(recipe, toy_cast()), accelerator=Accelerator(cpu=True), config=config)
    assert passes["gradients"] == 4 * 2 * 16


def test_points_cover_every_recipe() -> None:
    assert [point.case for point in recipes.points(False)] == list(RECIPES)
    assert {point.case for point in recipes.points(True)} == set(recipes.QUICK)
    assert recipes.AGAINST in recipes.QUICK
    images = toy_images(12)
    for name in RECIPES:
        if name in recipes.CLASSIFIERS and name != "transfer":  # which trains another classifier before
            recipes.small(name).configure_optimizers(recipes.networks_of(name, images))


def test_figures_compare_with_adversarial_training() -> None:
    costs = {"seconds": 1.0, "clean": 0.9, "gradients": 7.0}
    measured = {
        Point(recipes.NAME, "adversarial", "ours"): [{**costs, "robust": 0.5, "tflops": 2.0}],
        Point(recipes.NAME, "rtfe", "ours"): [{**costs, "robust": 0.6, "tflops": 8.0}],
    }
    own, rtfe = recipes.figures(measured)
    assert own.ratio == 1
    assert rtfe.ratio == 0.25
    assert (rtfe.parity["robust"], rtfe.parity["robust_against"], rtfe.unit) == (0.6, 0.5, "tflops")


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_work_of_every_recipe_reports_its_cost(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "EPOCHS", 1)
    monkeypatch.setattr(recipes, "IMAGES", 60)
    found = recipes.work(name)()
    assert found["tflops"] > 0
    assert 0 <= found["robust"] <= found["clean"] + 0.05
    assert (found["gradients"] == 0) == (name in ("natural", "denoised-smoothing"))
