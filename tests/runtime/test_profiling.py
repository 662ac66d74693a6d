from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import toy_networks
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.models.freezing import frozen
from forefend.models.guide import Guide
from forefend.recipes import AAA, RTFE, Natural
from forefend.recipes.base import Networks
from forefend.recipes.ensemble import every, in_turn
from forefend.runtime.profiling import count_compute, median_seconds
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf
from forefend.training.compute_budget import allowance, flops_per_image, training_flops

CONV = 2 * 36 * 4 * 9  # one 6x6 image, one channel to four, 3x3
LINEAR = 2 * (4 * 36) * 4


def test_count_compute_of_convolution_matches_formula() -> None:
    conv, x = nn.Conv2d(1, 4, 3, padding=1), torch.rand(2, 1, 6, 6)
    assert count_compute(lambda: conv(x)).flops == 2 * CONV
    assert count_compute(lambda: torch.autograd.grad(conv(x).sum(), conv.weight)).flops == 2 * 2 * CONV
    still = frozen(conv)
    assert count_compute(lambda: torch.autograd.grad(still(x.requires_grad_()).sum(), x)).flops == 2 * 2 * CONV


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_count_compute_of_linear_layer_in_every_mode(mode: type) -> None:
    layer = nn.Linear(5, 7)
    with mode():
        assert count_compute(lambda: layer(torch.rand(3, 5))).flops == 2 * 3 * 5 * 7


@pytest.mark.parametrize("steps", [1, 4])
def test_count_compute_of_attack_counts_its_steps(steps: int) -> None:
    f, x, y = frozen(toy_networks.classifier()), torch.rand(5, 1, 6, 6), torch.zeros(5, dtype=torch.int64)
    attack = PGD(Linf(0.1), steps, 0.05)
    hooks = len(f._forward_hooks)
    found = count_compute(lambda: attack(f, x, y, rng=KeyedRNG(torch.arange(5))), f)
    assert found.flops == steps * 5 * 2 * (CONV + LINEAR)
    assert found.forwards == found.gradients == steps * 5
    assert found.seconds > 0
    assert len(f._forward_hooks) == hooks


def test_count_compute_without_gradient_counts_none() -> None:
    f = toy_networks.classifier()

    def work() -> None:
        with torch.no_grad():
            f(torch.rand(3, 1, 6, 6))
        f(torch.rand(2, 1, 6, 6)).sum().backward()
        f(torch.rand(4, 1, 6, 6))

    found = count_compute(work, f)
    assert (found.forwards, found.gradients) == (9, 2)


def test_count_compute_of_failing_function_removes_hook() -> None:
    f = toy_networks.classifier()
    with pytest.raises(RuntimeError):
        count_compute(lambda: f(torch.rand(2, 3, 6, 6)), f)
    assert not f._forward_hooks


def test_median_seconds_calls_functions_in_turns() -> None:
    order: list[str] = []
    found = median_seconds([lambda: order.append("a"), lambda: order.append("b")], rounds=3)
    assert order == ["a", "b"] * 4
    assert len(found) == 2
    assert all(0 <= seconds < 1 for seconds in found)


def test_natural_training_costs_known_flops() -> None:
    images, network = toy_networks.toy_images(20), toy_networks.classifier(batch_norm=False)
    before = toy_networks.held(network)
    # The image needs no gradient: the convolution has one backward product, the linear layer two.
    by_hand = 2 * CONV + 3 * LINEAR
    recipe = Natural(epochs=7, batch_size=8)
    assert flops_per_image(recipe, images, Networks(classifier=network)) == by_hand
    assert training_flops(recipe, images, Networks(classifier=network)) == by_hand * 20 * 7
    assert toy_networks.untouched(network, before)


def test_predicted_cost_is_that_of_training() -> None:
    images, recipe = toy_networks.toy_images(24), RTFE(epochs=5, batch_size=8, steps=2)
    networks = toy_networks.with_roles_of(recipe, toy_networks.toy_cast())
    foretold = training_flops(recipe, images, networks)
    taken = count_compute(lambda: toy_networks.train(recipe, images, toy_networks.toy_cast())).flops
    assert foretold == pytest.approx(taken, rel=0.01)  # fit first checks the networks on two images


def test_predicted_cost_averages_alternating_guides() -> None:
    images = toy_networks.toy_images(16)
    large = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.Flatten(), nn.Linear(32 * 36, 4)).eval()
    guides = [Guide(toy_networks.classifier()), Guide(large)]
    recipe = RTFE(epochs=1, batch_size=8, steps=1)

    def flops(recipe: RTFE, guides: list[Guide]) -> float:
        return flops_per_image(recipe, images, Networks(toy_networks.preprocessor(), guides))

    alone = [flops(recipe, [guide]) for guide in guides]
    assert alone[1] > alone[0]
    assert flops(replace(recipe, policy=in_turn), guides) == pytest.approx(sum(alone) / 2)
    assert flops(replace(recipe, policy=every), guides) > alone[1]


def test_predicted_cost_excludes_held_out_images() -> None:
    recipe, images = AAA(epochs=2, batch_size=8, steps=1, hold_out=0.25), toy_networks.toy_images(16)
    networks = toy_networks.with_roles_of(recipe, toy_networks.toy_cast())
    per_image = flops_per_image(recipe, images, networks)
    assert training_flops(recipe, images, networks) == per_image * 12 * 2


@given(st.floats(1, 1e15), st.floats(0.5, 1e9), st.integers(1, 60000))
def test_training_stays_within_compute_budget(budget: float, per_image: float, images: int) -> None:
    if budget / per_image < 1:
        with pytest.raises(InputError, match="The budget is"):
            allowance(budget, per_image, images)
        return
    paid = allowance(budget, per_image, images)
    assert 1 <= paid.images <= images
    assert paid.epochs >= 1
    assert paid.flops <= budget * (1 + 1e-12)
    assert paid.flops == paid.epochs * paid.images * per_image
    assert paid.flops + paid.images * per_image > budget * (1 - 1e-12)


def test_compute_budget_cuts_epochs_then_images() -> None:
    paid = allowance(1000, 2, 100)
    assert (paid.epochs, paid.images, paid.flops) == (5, 100, 1000)
    paid = allowance(91.8, 2, 100)
    assert (paid.epochs, paid.images, paid.flops) == (1, 45, 90)


def test_count_compute_changes_no_result() -> None:
    x = torch.rand(2, 1, 6, 6)
    f = toy_networks.classifier()
    seen: list[Tensor] = []
    count_compute(lambda: seen.append(f(x)))
    assert torch.equal(seen[0], f(x))
