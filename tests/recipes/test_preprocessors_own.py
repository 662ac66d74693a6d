"""Robustifier, AAA, HGD and denoised smoothing against their papers' losses written once more in plain torch."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.plain_recipes import EPS, ascend, batch_of, cast_of, equal, uniform_start, yielded
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.defended import full, oblivious
from forefend.models.guide import Guide
from forefend.recipes import AAA, HGD, DenoisedSmoothing, Robustifier
from forefend.recipes.base import Batch, Networks, Recipe
from forefend.recipes.denoised_smoothing import classification, reconstruction, stability
from forefend.recipes.ensemble import every, sampled
from forefend.recipes.hgd import feature, label, logit, pixel
from forefend.threat_models.lp import Linf

SETTINGS = {"threat": Linf(EPS), "steps": 3, "relative_step": 0.4}


def twins(guides: int = 1) -> tuple[Networks, nn.Module, Batch]:
    networks = cast_of(guides)
    return networks, copy.deepcopy(networks.preprocessor), batch_of()


def mislead(f: Any, batch: Batch) -> Tensor:
    """The papers' attack on the cross-entropy of what `f` gives."""
    start = uniform_start(batch)
    return ascend(lambda a: F.cross_entropy(f(a), batch.y, reduction="sum"), batch.x, start, 3, 0.4 * EPS)


def restored(g: nn.Module, guides: list[Guide], batch: Batch) -> Tensor:
    """g(x̃) for the white-box attack on the mean of the guides' losses."""
    g.eval()
    start, x = uniform_start(batch), batch.x

    def loss(a: Tensor) -> Tensor:
        z = g(a)
        return sum(F.cross_entropy(f(z), batch.y, reduction="sum") for f in guides) / len(guides)

    x_adv = ascend(loss, x, start, 3, 0.4 * EPS)
    return g.train()(x_adv)


@pytest.mark.parametrize("logits_too", [False, True])
@pytest.mark.parametrize("taps", [(), ("0", "2")])
def test_robustifier_is_its_eq_6(taps: tuple[str, ...], logits_too: bool) -> None:
    networks, g, batch = twins()
    f = networks.guides[0].classifier
    r, x = restored(g, networks.guides, batch), batch.x
    read = [int(tap) + 1 for tap in taps or ("1",)] + ([5] if logits_too else [])
    activations = sum(F.mse_loss(f[:end](r), f[:end](x)) for end in read) / len(read)
    expected = 0.3 * F.cross_entropy(f(r), batch.y) + 7 * F.mse_loss(r, x) + 11 * activations
    recipe = Robustifier(**SETTINGS, alpha=0.3, beta=7.0, gamma=11.0, taps=taps, logits_too=logits_too)
    equal(yielded(recipe, networks, batch), expected, [(networks.preprocessor, g)])


@pytest.mark.parametrize(("ce_weight", "mse_weight"), [(1.0, 0.0), (0.0, 1.0), (1.0, 10.0)])
def test_aaa_is_its_eq_3(ce_weight: float, mse_weight: float) -> None:
    networks, g, batch = twins()
    z = restored(g, networks.guides, batch)
    expected = ce_weight * F.cross_entropy(networks.guides[0](z), batch.y) + mse_weight * F.mse_loss(z, batch.x)
    recipe = AAA(**SETTINGS, ce_weight=ce_weight, mse_weight=mse_weight)
    equal(yielded(recipe, networks, batch), expected, [(networks.preprocessor, g)])


def test_aaa_uses_one_classifier_for_attack_and_loss() -> None:
    asked = set()
    for step in range(12):
        networks, g, batch = twins(3)
        batch = replace(batch, rng=batch.rng.fold_in(step=step))
        chosen = sampled(networks.guides, batch.rng)
        z = restored(g, list(chosen), batch)
        expected = F.cross_entropy(chosen[0](z), batch.y) + 10 * F.mse_loss(z, batch.x)
        equal(yielded(AAA(**SETTINGS), networks, batch), expected, [(networks.preprocessor, g)])
        asked.add(networks.guides.index(chosen[0]))
    assert asked == {0, 1, 2}


def test_aaa_with_every_classifier_averages_losses() -> None:
    networks, g, batch = twins(3)
    z = restored(g, list(networks.guides), batch)
    losses = torch.stack([F.cross_entropy(f(z), batch.y) for f in networks.guides])
    recipe = AAA(**SETTINGS, policy=every, mse_weight=0.0)
    equal(yielded(recipe, networks, batch), losses.mean(), [(networks.preprocessor, g)])


GUIDANCE = {
    pixel: lambda f, z, x, y: F.l1_loss(z, x),
    logit: lambda f, z, x, y: F.l1_loss(f(z), f(x)),
    feature: lambda f, z, x, y: F.l1_loss(f[:3](z), f[:3](x)),
    label: lambda f, z, x, y: F.cross_entropy(f(z), y),
}


@pytest.mark.parametrize("sees", [oblivious, full])
@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: g.__name__)
def test_hgd_has_the_papers_loss(guidance: Any, sees: Any) -> None:
    networks, g, batch = twins()
    f = networks.guides[0].classifier
    g.eval()
    x_adv = mislead(f if sees is oblivious else lambda a: f(g(a)), batch)
    z = g.train()(x_adv)
    expected = GUIDANCE[guidance](f, z, batch.x, batch.y)
    recipe = HGD(**SETTINGS, guidance=guidance, sees=sees)
    equal(yielded(recipe, networks, batch), expected, [(networks.preprocessor, g)])


OBJECTIVES = {
    reconstruction: lambda f, z, x, y: F.mse_loss(z, x),
    stability: lambda f, z, x, y: F.cross_entropy(f(z), f(x).argmax(1)),
    classification: lambda f, z, x, y: F.cross_entropy(f(z), y),
}


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.__name__)
def test_denoised_smoothing_has_the_papers_loss(objective: Any) -> None:
    networks, g, batch = twins()
    noisy = batch.x + 0.4 * batch.rng.normal(batch.x)
    expected = OBJECTIVES[objective](networks.guides[0], g(noisy), batch.x, batch.y)
    recipe = DenoisedSmoothing(sigma=0.4, objective=objective)
    equal(yielded(recipe, networks, batch), expected, [(networks.preprocessor, g)])


def test_denoised_smoothing_noise_is_not_clipped() -> None:
    seen: list[Tensor] = []
    networks, batch = cast_of(), batch_of(200)
    networks.preprocessor.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    yielded(DenoisedSmoothing(sigma=0.25), Networks(networks.preprocessor, networks.guides), batch)
    noise = seen[-1] - batch.x
    assert abs(float(noise.std()) - 0.25) < 0.01
    assert abs(float(noise.mean())) < 0.01
    assert seen[-1].min() < 0
    assert abs(float((noise.abs() < 0.25).double().mean()) - 0.6827) < 0.02  # normal, not another shape


@pytest.mark.parametrize("recipe", [HGD(**SETTINGS), DenoisedSmoothing()])
def test_recipes_average_over_guides(recipe: Recipe) -> None:
    batch, losses = batch_of(), []
    both = cast_of(2)
    if isinstance(recipe, HGD):  # one attack, on the guides' mean, serves both: with no radius there is none
        recipe = replace(recipe, threat=Linf(0.0), steps=1)
    for guide in both.guides:
        losses.append(yielded(recipe, replace(cast_of(), guides=[guide]), batch))
    torch.testing.assert_close(yielded(recipe, both, batch), torch.stack(losses).mean())


def test_robustifier_with_unknown_tap_raises() -> None:
    networks, _, batch = twins()
    with pytest.raises(InputError, match="There is no tap in this classifier called 'layer4'"):
        yielded(Robustifier(**SETTINGS, taps=("layer4",)), networks, batch)
