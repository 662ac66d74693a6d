"""APE-GAN (1707.05474) and NRP (2006.04924): two trainables, their losses in plain torch, and the order of steps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.plain_recipes import EPS, ascend, batch_of, cast_of, corner_start, equal, steps, uniform_start
from helpers.toy_networks import toy_cast, toy_images, train, trained
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.defended import full, oblivious
from forefend.recipes import APEGAN, NRP
from forefend.recipes.base import Batch, Networks, Recipe
from forefend.threat_models.lp import L2, Linf

SETTINGS = {"threat": Linf(EPS), "steps": 3, "relative_step": 0.4}
KNOWLEDGE = pytest.mark.parametrize("sees", [oblivious, full])


def turns(recipe: Recipe, networks: Networks, batch: Batch) -> Any:
    return steps(recipe, networks, batch)


def real(logits: Tensor) -> Tensor:
    """−log sigmoid: what it costs that an image is not called real."""
    return -(1 / (1 + (-logits).exp())).log()


def made(logits: Tensor) -> Tensor:
    return real(-logits)


def ape_gan_examples(networks: Networks, g: nn.Module, batch: Batch, sees: Any) -> Tensor:
    f = networks.guides[0].classifier
    front = g.eval() if sees is full else nn.Identity()
    start = uniform_start(batch)
    x_adv = ascend(lambda a: F.cross_entropy(f(front(a)), batch.y, reduction="sum"), batch.x, start, 3, 0.4 * EPS)
    g.train()
    return x_adv


@KNOWLEDGE
def test_ape_gan_losses_match_the_paper(sees: Any) -> None:
    networks, batch = cast_of(), batch_of()
    g, d = copy.deepcopy(networks.preprocessor), copy.deepcopy(networks.discriminator)
    x, x_adv = batch.x, ape_gan_examples(networks, g, batch, sees)
    updates = turns(APEGAN(**SETTINGS, sees=sees), networks, batch)
    name, loss = next(updates)
    assert name == "discriminator"
    equal(loss, (real(d(x)) + made(d(g(x_adv).detach()))).mean(), [(networks.discriminator, d)])
    name, loss = next(updates)
    assert name == "preprocessor"
    z = g(x_adv)
    in_public_units = ((2 * z - 1) - (2 * x - 1)).square().mean()
    equal(loss, 0.7 * in_public_units + 0.3 * real(d(z)).mean(), [(networks.preprocessor, g)])


@pytest.mark.parametrize("generator_steps", [1, 2, 3])
def test_ape_gan_steps_alternate_on_fresh_output(
    generator_steps: int,
) -> None:
    networks, batch, losses = cast_of(), batch_of(), []
    names = []
    for name, loss in turns(APEGAN(**SETTINGS, generator_steps=generator_steps), networks, batch):
        names.append(name)
        losses.append(float(loss.detach()))
        with torch.no_grad():  # as if the step had been taken
            for parameter in (
                networks.discriminator if name == "discriminator" else networks.preprocessor
            ).parameters():
                parameter += 0.01
    assert names == ["discriminator"] + ["preprocessor"] * generator_steps
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("recipe", [APEGAN(**SETTINGS), NRP(**SETTINGS)])
def test_gan_generator_loss_uses_the_updated_discriminator(recipe: Recipe) -> None:
    losses = []
    for move in (0.0, 5.0):
        networks = cast_of()
        updates = turns(recipe, networks, batch_of())
        next(updates)
        with torch.no_grad():
            networks.discriminator[4].weight *= 1 + move
        losses.append(next(updates)[1].detach())
    assert losses[0] != losses[1]


@KNOWLEDGE
def test_nrp_losses_match_the_paper(sees: Any) -> None:
    networks, batch = cast_of(), batch_of()
    g, d = copy.deepcopy(networks.preprocessor), copy.deepcopy(networks.discriminator)
    x, h = batch.x, networks.guides[0].classifier[0]
    front = g.eval() if sees is full else nn.Identity()
    natural = h(front(x)).detach()
    start = corner_start(batch)
    x_adv = ascend(lambda a: (h(front(a)) - natural).square().mean((1, 2, 3)).sum(), x, start, 3, 0.4 * EPS)
    z = g.train()(x_adv)
    updates = turns(
        NRP(**SETTINGS, feature_weight=0.8, pixel_weight=0.3, discriminator_weight=0.2, sees=sees), networks, batch
    )
    name, loss = next(updates)
    assert name == "discriminator"
    clean, fake = d(x), d(z.detach())
    equal(loss, (real(clean - fake.mean()) + made(fake - clean.mean())).mean() / 2, [(networks.discriminator, d)])
    name, loss = next(updates)
    assert name == "preprocessor"
    fake, clean = d(z), d(x)
    fooled = (real(fake - clean.mean()) + made(clean - fake.mean())).mean() / 2
    pixels = torch.stack([(a - b).norm() for a, b in zip(z, x, strict=True)]).mean()
    expected = 0.8 * F.l1_loss(h(z), h(x)) + 0.3 * pixels + 0.2 * fooled
    equal(loss, expected, [(networks.preprocessor, g)])
    assert not list(updates)


def test_nrp_does_not_depend_on_labels() -> None:
    batch = batch_of()
    losses = [
        [
            float(loss.detach())
            for _, loss in turns(NRP(**SETTINGS), cast_of(), Batch(batch.x, y, batch.index, 0.0, batch.rng))
        ]
        for y in (batch.y, (batch.y + 1) % 4)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("recipe", [APEGAN(**SETTINGS, epochs=30), NRP(**SETTINGS, epochs=30)], ids=["ape-gan", "nrp"])
def test_gan_training_stays_finite(recipe: Recipe) -> None:
    networks = train(recipe, toy_images(), toy_cast(guides=1))
    assert all(tensor.isfinite().all() for tensor in trained(networks))


def test_nrp_with_l2_or_two_guides_raises() -> None:
    with pytest.raises(InputError, match=r"L2:0\.5, expected l∞"):
        NRP(threat=L2(0.5))
    with pytest.raises(InputError, match="2 guides, expected one"):
        NRP().configure_optimizers(toy_cast())
