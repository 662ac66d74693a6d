"""Recipes that train a classifier itself, against their papers' losses written once more in plain torch."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.plain_recipes import EPS, ascend, batch_of, cast_of, equal, small_start, uniform_start, yielded
from torch import Tensor, nn

from forefend.recipes import MART, TRADES, Adversarial, MMASimple, Natural
from forefend.recipes.base import Batch, Networks
from forefend.recipes.mart import divergence as divergence_of_mart
from forefend.threat_models.lp import Linf

STEP = 0.3
SETTINGS = {"threat": Linf(EPS), "steps": 4, "relative_step": STEP}


def twins() -> tuple[Networks, nn.Module, Batch]:
    """Networks, a copy of its classifier for the plain loss, and a batch some of whose images are misclassified."""
    networks, batch = cast_of(), batch_of(24)
    f = copy.deepcopy(networks.classifier)
    right = copy.deepcopy(f).eval()(batch.x).argmax(1) == batch.y
    assert 0 < right.sum() < len(right)
    return networks, f, batch


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of probabilities, row by row."""
    return (p * (p / q).log()).sum(1)


def mislead(f: nn.Module, batch: Batch, start: Tensor) -> Tensor:
    f.eval()
    x_adv = ascend(lambda a: F.cross_entropy(f(a), batch.y, reduction="sum"), batch.x, start, 4, STEP * EPS)
    f.train()
    return x_adv


def test_natural_is_cross_entropy_on_clean_images() -> None:
    networks, f, batch = twins()
    equal(yielded(Natural(), networks, batch), F.cross_entropy(f(batch.x), batch.y), [(networks.classifier, f)])


def test_adversarial_is_cross_entropy_on_attacked_images() -> None:
    networks, f, batch = twins()
    x_adv = mislead(f, batch, uniform_start(batch))
    equal(
        yielded(Adversarial(**SETTINGS), networks, batch),
        F.cross_entropy(f(x_adv), batch.y),
        [(networks.classifier, f)],
    )


def test_trades_is_its_eq_5() -> None:
    networks, f, batch = twins()
    f.eval()
    clean = f(batch.x).softmax(1).detach()
    start = small_start(batch)
    x_adv = ascend(lambda a: divergence(clean, f(a).softmax(1)).sum(), batch.x, start, 4, STEP * EPS)
    f.train()
    logits = f(batch.x)
    robust = divergence(logits.softmax(1), f(x_adv).softmax(1)).sum() / len(batch.x)
    expected = F.cross_entropy(logits, batch.y) + 2.5 * robust
    equal(yielded(TRADES(**SETTINGS, beta=2.5), networks, batch), expected, [(networks.classifier, f)])


def test_mart_is_its_eq_11() -> None:
    networks, f, batch = twins()
    x_adv = mislead(f, batch, small_start(batch))
    q, p = f(batch.x).softmax(1), f(x_adv).softmax(1)
    total = torch.zeros((), dtype=torch.float64)
    for i, label in enumerate(batch.y):
        rivals = torch.stack([p[i, k] for k in range(4) if k != label])
        boosted = -p[i, label].log() - (1.0001 - rivals.max() + 1e-12).log()
        total = total + boosted + 3.0 * divergence(q[i : i + 1], p[i : i + 1])[0] * (1.0000001 - q[i, label])
    equal(yielded(MART(**SETTINGS, beta=3.0), networks, batch), total / len(batch.x), [(networks.classifier, f)])


def test_mart_divergence_equals_the_authors_code_for_confident_logits() -> None:
    """Without their 1e-12 the gradient of a class of probability 1e-12 would be twice theirs."""
    generator = torch.Generator().manual_seed(0)
    logits = [40 * torch.randn(64, 4, generator=generator, dtype=torch.float64) for _ in range(2)]
    adv, nat = (value.clone().requires_grad_() for value in logits)
    ours = divergence_of_mart(adv, nat).sum()
    adv_probs, nat_probs = F.softmax(adv, dim=1), F.softmax(nat, dim=1)
    theirs = nn.KLDivLoss(reduction="none")(torch.log(adv_probs + 1e-12), nat_probs).sum()
    torch.testing.assert_close(ours, theirs)
    for mine, authors in zip(
        torch.autograd.grad(ours, (adv, nat)), torch.autograd.grad(theirs, (adv, nat)), strict=True
    ):
        torch.testing.assert_close(mine, authors)
    assert float((adv_probs.detach() + 1e-12).log().min()) == pytest.approx(math.log(1e-12), abs=1e-3)


def test_mart_divergence_of_impossible_classes_has_a_gradient() -> None:
    adv, nat = (torch.tensor([row]).requires_grad_() for row in ([0.0, 500.0], [500.0, 0.0]))
    slopes = torch.autograd.grad(divergence_of_mart(adv, nat).sum(), (adv, nat))
    assert all(slope.isfinite().all() for slope in slopes)


def test_simplified_mma_attacks_correct_images_alone() -> None:
    networks, f, batch = twins()
    f.eval()
    right = f(batch.x).argmax(1) == batch.y
    x_adv = mislead(f, batch, uniform_start(batch))
    seen = torch.stack([a if ok else x for a, x, ok in zip(x_adv, batch.x, right, strict=True)])
    # The published code's two terms, in one forward pass so that BatchNorm sees one batch.
    terms = F.cross_entropy(f(seen), batch.y, reduction="none")
    equal(yielded(MMASimple(**SETTINGS), networks, batch), terms.mean(), [(networks.classifier, f)])


def test_recipes_without_a_radius_are_natural_training() -> None:
    for recipe in (Adversarial, MMASimple):
        networks, f, batch = twins()
        still = recipe(threat=Linf(0.0), steps=1)
        equal(yielded(still, networks, batch), F.cross_entropy(f(batch.x), batch.y), [(networks.classifier, f)])
    networks, f, batch = twins()
    plain = replace(TRADES(**SETTINGS), beta=0.0)
    equal(yielded(plain, networks, batch), F.cross_entropy(f(batch.x), batch.y), [(networks.classifier, f)])
