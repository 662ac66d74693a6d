"""RTFE against its paper: arXiv 2209.06931, Eqs. 2 to 9, written here once more in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.plain_recipes import steps
from helpers.toy_networks import classifier, preprocessor, toy_images, train
from torch import Tensor, nn

from forefend.losses import Loss, huber_mean, huber_sum, huber_vector
from forefend.models.guide import Guide
from forefend.recipes import RTFE
from forefend.recipes.base import Batch, Networks
from forefend.recipes.ensemble import Policy, every, in_turn, sampled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

EPS = 0.1
RECIPE = RTFE(threat=Linf(EPS), steps=3, epochs=1, batch_size=16, milestones=())


def plain_loss(g: nn.Module, guides: Sequence[nn.Module], x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
    """The method in its own words: craft in eval mode on the mean cross-entropy, then the mean Huber loss."""
    teachers = [f(x).detach() for f in guides]
    g.eval()
    x_adv = (x + EPS * (2 * noise - 1)).clamp(0, 1)
    for _ in range(RECIPE.steps):
        x_adv = x_adv.detach().requires_grad_()
        total = sum(F.cross_entropy(f(g(x_adv)), y, reduction="sum") for f in guides) / len(guides)
        (gradient,) = torch.autograd.grad(total, x_adv)
        moved = x_adv + RECIPE.relative_step * EPS * gradient.sign()
        x_adv = torch.minimum(torch.maximum(moved, x - EPS), x + EPS).clamp(0, 1)
    g.train()
    x_out = g(x_adv.detach())
    d = [(f(x_out) - t).abs() for f, t in zip(guides, teachers, strict=True)]
    return torch.stack([torch.where(e <= 1, e**2 / 2, e - 0.5).mean() for e in d]).mean()


def batch_of(count: int = 12, dtype: torch.dtype = torch.float64) -> Batch:
    x, y, index = toy_images(count).batch(torch.arange(count))
    return Batch(x.to(dtype), y, index, 0.0, KeyedRNG(index, 0, "train"))


def cast_of(members: int) -> Networks:
    return Networks(preprocessor(3).double(), [Guide(classifier(seed).double()) for seed in range(1, members + 1)])


def yielded(recipe: RTFE, networks: Networks, batch: Batch) -> Tensor:
    """The one loss of a step, the preprocessor in training mode."""
    networks.preprocessor.train()
    ((name, loss),) = steps(recipe, networks, batch)
    assert name == "preprocessor"
    return loss


def gradient(loss: Tensor, network: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


@pytest.mark.parametrize("members", [1, 2, 3])
def test_rtfe_loss_and_gradient_match_a_plain_loop(members: int) -> None:
    networks, batch = cast_of(members), batch_of()
    g, noise = copy.deepcopy(networks.preprocessor), batch.rng.uniform(batch.x)
    expected, loss = plain_loss(g, networks.guides, batch.x, batch.y, noise), yielded(RECIPE, networks, batch)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient(loss, networks.preprocessor), gradient(expected, g), rtol=1e-6, atol=1e-12)
    for ours, plain in zip(networks.preprocessor.buffers(), g.buffers(), strict=True):
        torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("members", [1, 2])
def test_fit_of_rtfe_matches_plain_steps_of_sgd(members: int) -> None:
    images, seen = toy_images(48), []
    images = replace(images, pixels=images.pixels.double())

    def record(x: Tensor, rng: KeyedRNG) -> Tensor:
        seen.append(rng)
        return x

    networks = cast_of(members)
    g = copy.deepcopy(networks.preprocessor)
    train(RECIPE, images, networks, augment=record)
    sgd = torch.optim.SGD(g.parameters(), 0.1, momentum=0.9, weight_decay=2e-4)
    for rng in seen:
        x, y = images.batch(rng.index)[0], images.labels[rng.index]
        sgd.zero_grad()
        plain_loss(g, networks.guides, x, y, rng.fold_in(purpose="train").uniform(x)).backward()
        sgd.step()
    assert len(seen) == 3
    for ours, plain in zip(networks.preprocessor.state_dict().values(), g.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


def test_rtfe_ensemble_loss_is_the_mean_over_guides() -> None:
    recipe, batch, networks = RTFE(threat=Linf(0.0), steps=1), batch_of(), cast_of(3)
    alone = [
        yielded(recipe, Networks(copy.deepcopy(networks.preprocessor), [guide]), batch) for guide in networks.guides
    ]
    torch.testing.assert_close(yielded(recipe, networks, batch), torch.stack(alone).mean())
    assert len({round(loss.item(), 9) for loss in alone}) == 3


def huber_gradient(huber: Loss, scale: float, classes: int = 10) -> Tensor:
    """The first step's gradient under one reading of Eq. 6, the guide's logits scaled so that distances are large."""
    torch.manual_seed(0)
    guide = nn.Sequential(nn.Flatten(), nn.Linear(36, classes)).double()
    guide[1].weight.data *= scale
    networks, batch = Networks(preprocessor(3).double(), [Guide(guide)]), batch_of(64)
    return gradient(yielded(RTFE(threat=Linf(EPS), steps=1, huber=huber), networks, batch), networks.preprocessor)


@pytest.mark.parametrize("classes", [10, 100])
def test_rtfe_huber_readings_differ_by_number_of_logits(classes: int) -> None:
    mean, total, vector = (huber_gradient(h, 30.0, classes) for h in (huber_mean, huber_sum, huber_vector))
    torch.testing.assert_close(total, classes * mean)
    assert 0.9 < (vector.norm() / mean.norm()).item() / classes < 1.2
    assert not torch.allclose(vector, total)


CALLS: list[str] = []


class Calling(nn.Module):
    """A classifier that says when it is asked."""

    def __init__(self, name: str, seed: int) -> None:
        super().__init__()
        self.name, self.network = name, classifier(seed)

    def forward(self, x: Tensor) -> Tensor:
        CALLS.append(self.name)
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize(("policy", "asked"), [(every, 3), (sampled, 1), (in_turn, 1)])
def test_rtfe_attacks_and_learns_from_the_same_guides(policy: Policy, asked: int) -> None:
    names = "abc"
    networks = Networks(preprocessor(3), [Guide(Calling(name, seed)) for seed, name in enumerate(names)])
    recipe = RTFE(threat=Linf(EPS), steps=2, policy=policy)
    x, y, index = toy_images(8).batch(torch.arange(8))
    served = []
    for step in range(12):
        CALLS.clear()
        yielded(recipe, networks, Batch(x, y, index, 0.0, KeyedRNG(index, 0, "train", step=step)))
        assert len(set(CALLS)) == asked
        assert len(CALLS) == 4 * asked  # the teacher's answer, two attack steps, the weight step
        served.append("".join(sorted(set(CALLS))))
    assert set("".join(served)) == set(names)
    if policy is in_turn:
        assert served == list(names) * 4


def test_rtfe_teacher_uses_the_clean_image() -> None:
    networks, batch = cast_of(1), batch_of()
    identity = Networks(nn.Conv2d(1, 1, 1).double(), networks.guides)
    with torch.no_grad():
        identity.preprocessor.weight.fill_(1.0)
        identity.preprocessor.bias.zero_()
    loss = yielded(RTFE(threat=Linf(0.0), steps=1), identity, batch)
    assert loss.item() == 0.0  # f(g(x)) = f(x) when g changes nothing
