"""What the tests of single recipes share: one batch in float64, one step of a recipe, and projected gradient descent
once more, in plain torch, without a line of the library's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from helpers.toy_networks import classifier, discriminator, preprocessor, toy_images
from torch import Tensor, nn

from forefend.models.guide import Guide
from forefend.recipes.base import Batch, Networks, Recipe, no_attack
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG

EPS = 0.1


def batch_of(count: int = 12) -> Batch:
    """Images, and labels a quarter of which an untrained classifier may well get right."""
    x, y, index = toy_images(count).batch(torch.arange(count))
    return Batch(x.double(), y, index, 0.0, KeyedRNG(index, 0, "train"))


def cast_of(guides: int = 1) -> Networks:
    """Every role filled, in float64; preprocessor, classifier and discriminator in training mode."""
    nets = [preprocessor(3).double().train(), classifier(4).double().train(), discriminator(5).double().train()]
    return Networks(nets[0], [Guide(classifier(n).double()) for n in range(1, guides + 1)], *nets[1:])


def yielded(recipe: Recipe, networks: Networks, batch: Batch) -> Tensor:
    """The one loss of a step."""
    ((_, loss),) = steps(recipe, networks, batch)
    return loss


def steps(recipe: Recipe, networks: Networks, batch: Batch, state: TrainState | None = None) -> Iterator[Any]:
    """The names and losses of a step with the recipe's own attack."""
    attack = recipe.inner_attack() or no_attack
    return recipe.training_step(networks, networks.crafting(), batch, attack, state or TrainState())


def gradient(loss: Tensor, *nets: nn.Module) -> Tensor:
    """The loss's gradient with respect to every parameter of the networks, as one vector."""
    parameters = [p for network in nets for p in network.parameters()]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def equal(ours: Tensor, plain: Tensor, pairs: list[tuple[nn.Module, nn.Module]]) -> None:
    """The same loss, and the same gradient with respect to our networks and their plain twins."""
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)
    got, expected = gradient(ours, *(a for a, _ in pairs)), gradient(plain, *(b for _, b in pairs))
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-11)
    assert expected.norm() > 1e-6


def uniform_start(batch: Batch) -> Tensor:
    return (batch.x + EPS * (2 * batch.rng.uniform(batch.x) - 1)).clamp(0, 1)


def small_start(batch: Batch) -> Tensor:
    return (batch.x + 0.001 * batch.rng.normal(batch.x)).clamp(0, 1)


def corner_start(batch: Batch) -> Tensor:
    noise = batch.rng.normal(batch.x)
    return torch.minimum(torch.maximum(noise, batch.x - EPS), batch.x + EPS).clamp(0, 1)


def ascend(loss: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, steps: int, size: float) -> Tensor:
    """Signed gradient steps on `loss`, each clipped to x ± EPS and to [0, 1]."""
    x_adv = start
    for _ in range(steps):
        x_adv = x_adv.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(x_adv), x_adv)
        x_adv = torch.minimum(torch.maximum(x_adv + size * slope.sign(), x - EPS), x + EPS).clamp(0, 1)
    return x_adv.detach()
