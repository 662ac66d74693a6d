"""JATP against its paper: arXiv 2106.05453, Eqs. 5 to 10, written here once more in plain torch."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers.plain_recipes import EPS, ascend, batch_of, cast_of, equal, gradient, uniform_start, yielded
from helpers.toy_networks import classifier
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, from_x
from forefend.checks import InputError
from forefend.losses import ce, mse
from forefend.models.guide import Guide
from forefend.recipes import JAT, JATP, JATPPrime
from forefend.recipes.base import Batch, Networks
from forefend.threat_models.lp import Linf

SETTINGS = {"threat": Linf(EPS), "steps": 3, "relative_step": 0.4}


def plain_loss(g: nn.Module, f: nn.Module, batch: Batch, alpha: float = 5.0, beta: float = 3.0) -> Tensor:
    """Algorithm 1, image by image; t* is the classifier's convolution, and f keeps the mode that it comes in."""
    x, y, mode = batch.x, batch.y, f.training
    g.eval(), f.eval()
    natural = f[0](g(x)).detach()
    start = uniform_start(batch)
    x_adv = ascend(lambda a: (f[0](g(a)) - natural).square().mean((1, 2, 3)).sum(), x, start, 3, 0.4 * EPS)  # Eq. 5
    g.train(), f.train(mode)
    z_adv, z = g(x_adv), g(x)
    t_adv, t = f[0](z_adv), f[0](z)
    p, q = f(z_adv).softmax(1), f(z).softmax(1)
    total = torch.zeros((), dtype=x.dtype)
    for i, label in enumerate(y):
        rivals = [p[i, k] for k in range(p.shape[1]) if k != label]
        bce = -p[i, label].log() - (1.0001 - torch.stack(rivals).max()).log()  # Eq. 7
        fsm = ((t_adv[i] - t[i]) ** 2).mean()  # Eq. 8
        pixels = ((z_adv[i] - x[i]) ** 2).sum().sqrt()  # Eq. 6
        total = total + bce + alpha * fsm * (1 - q[i, label]) + beta * pixels  # Eqs. 9 and 10
    return total / len(x)


def test_jatp_is_its_algorithm_1() -> None:
    networks, batch = cast_of(), batch_of()
    g = copy.deepcopy(networks.preprocessor)
    expected = plain_loss(g, networks.guides[0].classifier, batch)
    equal(yielded(JATP(**SETTINGS), networks, batch), expected, [(networks.preprocessor, g)])


@pytest.mark.parametrize("recipe", [JATPPrime, JAT])
def test_joint_training_has_jatps_loss(recipe: type[JAT]) -> None:
    networks, batch = cast_of(), batch_of()
    g, f = copy.deepcopy(networks.preprocessor), copy.deepcopy(networks.classifier)
    for conv in (networks.classifier[0], f[0]):
        conv.bias.requires_grad_(True)
    ours, plain = yielded(recipe(**SETTINGS), networks, batch), plain_loss(g, f, batch)
    equal(ours, plain, [(networks.preprocessor, g), (networks.classifier, f)])


def test_jatp_terms_have_their_own_weights() -> None:
    batch = batch_of()

    def loss(**weights: float) -> Tensor:
        return yielded(JATP(**SETTINGS, **weights), cast_of(), batch)

    bare = {"adversarial_weight": 0.0, "alpha": 0.0, "beta": 0.0}
    assert loss(**bare) == 0
    one = {name: loss(**bare | {name: 1.0}) for name in bare}
    assert all(term > 0 for term in one.values())
    torch.testing.assert_close(loss(), one["adversarial_weight"] + 5 * one["alpha"] + 3 * one["beta"])


def test_jatp_with_ce_alone_is_cross_entropy() -> None:
    networks, batch = cast_of(), batch_of()
    g, f = copy.deepcopy(networks.preprocessor), networks.guides[0].classifier
    ours = yielded(JATP(**SETTINGS, alpha=0.0, beta=0.0, adversarial=ce), networks, batch)
    g.eval()
    natural = f[0](g(batch.x)).detach()
    attack = PGD(Linf(EPS), 3, 0.4 * EPS, loss=mse)
    x_adv = attack(lambda a: f[0](g(a)), batch.x, natural, rng=batch.rng)
    g.train()
    equal(ours, F.cross_entropy(f(g(x_adv)), batch.y), [(networks.preprocessor, g)])


def test_jatp_attack_requires_its_random_start() -> None:
    networks, batch = cast_of(), batch_of()
    g, f = networks.preprocessor.eval(), networks.guides[0].classifier
    attack = PGD(Linf(EPS), 5, EPS, loss=mse)

    def features(a: Tensor) -> Tensor:
        return f[0](g(a))

    natural = features(batch.x).detach()
    unmoved = replace(attack, start=from_x)(features, batch.x, natural, rng=batch.rng)
    assert torch.equal(unmoved, batch.x)
    assert not torch.equal(attack(features, batch.x, natural, rng=batch.rng), batch.x)


def test_jatp_attack_does_not_depend_on_labels() -> None:
    batch, inert = batch_of(), JATP(**SETTINGS, adversarial_weight=0.0, alpha=0.0)
    other = replace(batch, y=(batch.y + 1) % 4)
    assert torch.equal(yielded(inert, cast_of(), batch), yielded(inert, cast_of(), other))


def test_jatp_tap_selects_the_features() -> None:
    batch = batch_of()
    named, default, last = (yielded(JATP(**SETTINGS, tap=tap), cast_of(), batch) for tap in ("0", "", "2"))
    assert torch.equal(named, default)
    assert not torch.equal(last, default)
    with pytest.raises(InputError, match="There is no tap in this classifier called 'layer3'"):
        yielded(JATP(**SETTINGS, tap="layer3"), cast_of(), batch)


def test_jatp_uses_guides_in_turn() -> None:
    guides = [Guide(classifier(seed).double()) for seed in (1, 2)]
    for step in range(4):
        turn = replace(batch_of(), rng=batch_of().rng.fold_in(step=step))
        one, both = Networks(cast_of().preprocessor, [guides[step % 2]]), Networks(cast_of().preprocessor, guides)
        expected = gradient(yielded(JATP(**SETTINGS), one, turn), one.preprocessor)
        torch.testing.assert_close(gradient(yielded(JATP(**SETTINGS), both, turn), both.preprocessor), expected)
