"""Recipes that must be each other: the same loss and the same gradient on one batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.plain_recipes import EPS, batch_of, cast_of, gradient, steps, uniform_start, yielded
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.losses import huber_mean, huber_sum
from forefend.models.defended import full, oblivious
from forefend.recipes import (
    AAA,
    APEGAN,
    HGD,
    MART,
    NRP,
    RTFE,
    TRADES,
    Adversarial,
    DenoisedSmoothing,
    MMASimple,
    Natural,
    Robustifier,
    Transfer,
)
from forefend.recipes.base import Recipe
from forefend.recipes.denoised_smoothing import classification
from forefend.recipes.ensemble import every, in_turn, sampled
from forefend.recipes.hgd import label
from forefend.threat_models.lp import Linf

INNER = {"threat": Linf(EPS), "steps": 3, "relative_step": 0.4}
NONE = {"threat": Linf(0.0), "steps": 1}
CE_ONLY = AAA(**INNER, mse_weight=0.0)

SAME: dict[str, tuple[Recipe, Recipe]] = {
    "Robustifier without fidelity is AAA without reconstruction": (
        Robustifier(**INNER, alpha=1.0, beta=0.0, gamma=0.0),
        CE_ONLY,
    ),
    "Robustifier on pixels alone is AAA on reconstruction alone": (
        Robustifier(**INNER, alpha=0.0, beta=10.0, gamma=0.0),
        AAA(**INNER, ce_weight=0.0, mse_weight=10.0),
    ),
    "HGD guided by labels with examples of the pipeline is AAA without reconstruction": (
        HGD(**INNER, guidance=label, sees=full),
        CE_ONLY,
    ),
    "HGD guided by labels without a radius is denoised smoothing without noise": (
        HGD(**NONE, guidance=label),
        DenoisedSmoothing(sigma=0.0, objective=classification),
    ),
    "RTFE with one guide is RTFE-ensemble of one": (RTFE(**INNER, policy=every), RTFE(**INNER, policy=sampled)),
    "RTFE in turn of one": (RTFE(**INNER, policy=every), RTFE(**INNER, policy=in_turn)),
}
SAME_OF_CLASSIFIERS: dict[str, tuple[Recipe, Recipe]] = {
    "adversarial training without a radius is natural": (Adversarial(**NONE), Natural()),
    "simplified MMA without a radius is natural": (MMASimple(**NONE), Natural()),
    "transfer without steps is natural": (Transfer(steps=0), Natural()),
    "TRADES with β = 0 is natural": (TRADES(**INNER, beta=0.0), Natural()),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_recipes_of_preprocessors_have_equal_losses(pair: tuple[Recipe, Recipe]) -> None:
    losses, slopes = [], []
    for recipe in pair:
        networks = cast_of()
        losses.append(yielded(recipe, networks, batch_of()))
        slopes.append(gradient(losses[-1], networks.preprocessor))
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(slopes[0], slopes[1])
    assert slopes[0].norm() > 0


@pytest.mark.parametrize("pair", SAME_OF_CLASSIFIERS.values(), ids=SAME_OF_CLASSIFIERS)
def test_recipes_of_classifiers_have_equal_losses(pair: tuple[Recipe, Recipe]) -> None:
    slopes = []
    for recipe in pair:
        networks = cast_of()
        slopes.append(gradient(yielded(recipe, networks, batch_of()), networks.classifier))
    torch.testing.assert_close(slopes[0], slopes[1])


def test_mart_without_stability_is_boosted_adversarial() -> None:
    networks, twin, batch = cast_of(), cast_of(), batch_of()
    x, y = batch.x, batch.y
    loss = yielded(MART(**NONE, beta=0.0), networks, batch)
    p = twin.classifier(x).softmax(1)
    rivals = p.scatter(1, y[:, None], 0.0).amax(1)
    torch.testing.assert_close(loss, (-p[torch.arange(12), y].log() - (1.0001 - rivals).log()).mean())


def test_rtfe_huber_sum_is_a_multiple_of_huber_mean() -> None:
    mean, total = (yielded(RTFE(**INNER, huber=huber), cast_of(), batch_of()) for huber in (huber_mean, huber_sum))
    torch.testing.assert_close(total, 4 * mean)


class Noting(nn.Conv2d):
    """A pixelwise convolution that changes nothing, and keeps what it is given in training mode."""

    def __init__(self) -> None:
        super().__init__(1, 1, 1)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.detach().clone())
        return super().forward(x)


@pytest.mark.parametrize("recipe", [HGD(**INNER), APEGAN(**INNER), NRP(**INNER)], ids=["hgd", "ape-gan", "nrp"])
def test_full_knowledge_of_an_identity_is_oblivious(recipe: Recipe) -> None:
    """Full knowledge of a preprocessor that changes nothing gives the oblivious attacker's examples."""
    examples = []
    for sees in (oblivious, full):
        networks = replace(cast_of(), preprocessor=Noting().double().train())
        list(steps(replace(recipe, sees=sees), networks, batch_of()))  # type: ignore[call-arg]
        examples.append(networks.preprocessor.seen[0])
    torch.testing.assert_close(*examples, rtol=0, atol=1e-12)
    assert (examples[0] - batch_of().x).abs().max() > 0.9 * EPS


def test_hgd_examples_are_those_of_its_attack() -> None:
    networks, batch = replace(cast_of(), preprocessor=Noting().double().train()), batch_of()
    yielded(HGD(**INNER), networks, batch)
    attack = PGD(Linf(EPS), 3, 0.4 * EPS)
    assert torch.equal(networks.preprocessor.seen[0], attack(networks.guides[0], batch.x, batch.y, rng=batch.rng))
    assert not torch.equal(networks.preprocessor.seen[0], uniform_start(batch))
