from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier as toy_classifier
from helpers.toy_networks import held, untouched
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from forefend import data
from forefend.attacks.carlini_wagner import CarliniWagner, carlini_wagner, cw_search_c100, cw_single_c100
from forefend.checks import InputError
from forefend.losses import margin
from forefend.models.classifiers.pretrained import load_weights
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf

SHORT = CarliniWagner(L2(5), searches=6, iterations=60, lr=0.02, weight=1.0)


def linear(classes: int, inputs: int = 48) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes)).double()


def gray(count: int, low: float = 0.35, high: float = 0.65) -> Tensor:
    """Images far enough from black and white that the box does not matter."""
    generator = torch.Generator().manual_seed(count)
    return low + (high - low) * torch.rand(count, 3, 4, 4, generator=generator, dtype=torch.float64)


def run(attack: CarliniWagner, f: Any, x: Tensor, y: Tensor) -> Tensor:
    return attack(f, x, y, rng=KeyedRNG(torch.arange(len(x))))


def lengths(x_adv: Tensor, x: Tensor) -> Tensor:
    return (x_adv - x).flatten(1).norm(dim=1)


def to_boundaries(network: nn.Sequential, x: Tensor, y: Tensor, confidence: float = 0.0) -> Tensor:
    """The distances to the hyperplanes on which each other class leads the right one by `confidence`: `(B, K)`."""
    logits, weight = network(x).detach(), network[1].weight.detach()
    gaps = logits.gather(1, y[:, None]) - logits + confidence
    distance = gaps / (weight[y][:, None] - weight).norm(dim=2)
    return distance.scatter(1, y[:, None], float("inf"))


def check_hyperplanes(attack: CarliniWagner, classes: int) -> None:
    """On the hyperplane of the class it ends in, and within 5 % of the nearest.

    With more than two classes that need not be the nearest: the loss pursues the class that leads in logits.
    """
    network, x = linear(classes), gray(8)
    y = network(x).argmax(1)
    x_adv = run(attack, network, x, y)
    found, boundaries = lengths(x_adv, x), to_boundaries(network, x, y)
    own = boundaries.gather(1, network(x_adv).argmax(1)[:, None]).squeeze(1)
    assert (margin(network(x_adv), y) > 0).all()
    assert (found >= boundaries.amin(1)).all()
    assert (found < 1.02 * own).all(), found / own
    assert (found < (1.02 if classes == 2 else 1.05) * boundaries.amin(1)).all(), found / boundaries.amin(1)


@pytest.mark.parametrize("classes", [2, 5])
def test_cw_on_a_linear_classifier_finds_the_hyperplane(classes: int) -> None:
    check_hyperplanes(SHORT, classes)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 5])
def test_as_published_it_finds_the_hyperplane_too(classes: int) -> None:
    check_hyperplanes(carlini_wagner(L2(5)), classes)


def test_confidence_moves_the_hyperplane() -> None:
    network, x = linear(2), gray(6)
    y = network(x).argmax(1)
    x_adv = run(replace(SHORT, confidence=0.4), network, x, y)
    ratio = lengths(x_adv, x) / to_boundaries(network, x, y, 0.4).amin(1)
    assert (margin(network(x_adv), y) > 0.4).all()
    assert (ratio >= 1).all()
    assert (ratio < 1.02).all(), ratio


def test_cw_on_saturated_images_finds_the_exact_optimum() -> None:
    """Each pixel may go one way only, so the optimum is along those weights that point inwards, by hand."""
    network, y = linear(2), torch.zeros(4, dtype=torch.int64)
    x = (gray(4) > 0.5).double()
    x[0], x[1] = 0.0, 1.0
    weight = (network[1].weight[1] - network[1].weight[0]).detach().view(1, 3, 4, 4)
    inwards = weight * ((weight > 0) == (x == 0))
    gap = 0.3
    with torch.no_grad():
        level = (network[1].weight[1] - network[1].weight[0]) @ x.flatten(1).T

    def f(images: Tensor) -> Tensor:
        lead = (images * weight).flatten(1).sum(1) - level - gap
        return torch.stack((torch.zeros_like(lead), lead), 1)

    exact = gap / inwards.flatten(1).norm(dim=1)
    x_adv = run(CarliniWagner(L2(5), searches=6, iterations=200, lr=0.1, weight=1.0), f, x, y)
    ratio = lengths(x_adv, x) / exact
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert (f(x_adv).argmax(1) == 1).all()
    assert (ratio > 1 - 1e-6).all()
    assert (ratio < 1.05).all(), ratio


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_irrelevant_pixels_are_unchanged(dtype: torch.dtype) -> None:
    x = torch.rand(4, 3, 4, 4, dtype=dtype)
    x[0], x[1] = 0.0, 1.0
    x[2, :, :, ::2], x[2, :, :, 1::2] = 0.0, 1.0
    weight = torch.randn(3, 4, 4, dtype=dtype)
    weight[:, 2:] = 0
    f = lambda images: torch.stack((0.1 + 0 * images.sum((1, 2, 3)), ((images - x) * weight).sum((1, 2, 3))), 1)  # noqa: E731
    x_adv = run(replace(SHORT, lr=0.2), f, x, torch.zeros(4, dtype=torch.int64))
    assert (x_adv != x).flatten(1).any(1).all()
    assert torch.equal(x_adv[:, :, 2:], x[:, :, 2:])
    assert x_adv.dtype == dtype


def test_misclassified_image_is_returned_unchanged() -> None:
    network, x = linear(3), gray(5)
    y = (network(x).argmax(1) + 1) % 3
    assert torch.equal(run(replace(SHORT, searches=2, iterations=5), network, x, y), x)


@settings(max_examples=12)
@given(st.integers(0, 10**6), st.floats(0, 2), st.sampled_from([0, 3]))
def test_result_is_adversarial_inside_the_ball_or_x(seed: int, radius: float, checks: int) -> None:
    torch.manual_seed(seed)
    network, x, threat = linear(3), torch.rand(6, 3, 4, 4, dtype=torch.float64).round(decimals=1), L2(radius)
    y = network(x).argmax(1)
    x_adv = run(CarliniWagner(threat, 3, 12, 0.1, 1.0, checks=checks), network, x, y)
    lost = network(x_adv).argmax(1) != y
    assert threat.allows(x_adv, x).all()
    assert (lost | (x_adv == x).flatten(1).all(1)).all()


def test_radius_only_selects_the_returned_images() -> None:
    network, x = linear(3), gray(8)
    y = network(x).argmax(1)
    far = run(SHORT, network, x, y)
    radius = float(lengths(far, x).median())
    near = run(replace(SHORT, threat=L2(radius)), network, x, y)
    inside = lengths(far, x) <= radius
    assert 0 < inside.sum() < 8
    assert torch.equal(near[inside], far[inside])
    assert torch.equal(near[~inside], x[~inside])


@pytest.mark.parametrize("attack", [replace(SHORT, searches=3), replace(SHORT, searches=2, checks=10, lr=0.3)], ids=str)
def test_result_of_an_image_is_independent_of_its_batch(attack: CarliniWagner) -> None:
    network, x = linear(4), gray(5)
    y = network(x).argmax(1)
    together = run(attack, network, x, y)
    alone = torch.cat([run(attack, network, x[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-9, rtol=0)
    assert (lengths(together, x) > 0).all()


def test_more_searches_never_end_further_away() -> None:
    network, x = linear(4), gray(6)
    y = network(x).argmax(1)
    found = [lengths(run(replace(SHORT, searches=n, weight=30.0), network, x, y), x) for n in (1, 3, 6)]
    assert (found[0] >= found[1]).all()
    assert (found[1] >= found[2]).all()
    assert (found[0] > 1.02 * found[2]).any()


def test_weight_too_small_grows_until_success() -> None:
    network, x = linear(2), gray(4)
    y = network(x).argmax(1)
    small = replace(SHORT, weight=1e-4)
    assert torch.equal(run(replace(small, searches=3), network, x, y), x)
    assert (margin(network(run(replace(small, searches=6), network, x, y)), y) > 0).all()


def test_steps_equal_the_number_of_gradients() -> None:
    network, calls = linear(2), []
    x = gray(2)

    def f(images: Tensor) -> Tensor:
        calls.append(len(images))
        return network(images)

    attack = replace(SHORT, searches=3, iterations=7)
    run(attack, f, x, network(x).argmax(1))
    assert attack.steps == 21
    assert calls == [2] * 21
    assert carlini_wagner(L2(1)).steps == 9000
    assert cw_single_c100(L2(1)).steps == 100


def test_cw_single_c100_reaches_a_corner_and_stops() -> None:
    """From mid-gray a step of 10 in tanh space makes every pixel black or white, whatever the gradient's size."""
    network, calls = linear(2), []
    x = gray(4)
    y = network(x).argmax(1)

    def f(images: Tensor) -> Tensor:
        calls.append(len(images))
        return network(images)

    uphill = (network[1].weight[1 - y] - network[1].weight[y]).detach().view_as(x)
    corner = (uphill > 0).double()
    torch.testing.assert_close(run(cw_single_c100(L2(5)), f, x, y), corner, atol=1e-6, rtol=0)
    assert len(calls) < 100
    assert (lengths(corner, x) > 3).all()
    assert torch.equal(run(cw_single_c100(L2(3)), network, x, y), x)  # AAA's radius
    assert (lengths(run(SHORT, network, x, y), x) < 1).all()


def test_attack_restores_the_network() -> None:
    network = toy_classifier().train()
    before = held(network)
    x = torch.rand(3, 1, 6, 6)
    x_adv = run(replace(SHORT, searches=1, iterations=3), network, x, torch.zeros(3, dtype=torch.int64))
    assert untouched(network, before)
    assert not x_adv.requires_grad


def test_names_tell_the_settings() -> None:
    proper, weak = carlini_wagner(L2(0.5)), cw_single_c100(L2(3))
    assert str(proper) == "CW-9x1000(L2:0.5, lr=0.01, c=0.01, confidence=0.0, checks=0)"
    assert str(cw_search_c100(L2(3))) == "CW-9x100(L2:3, lr=0.1, c=100.0, confidence=0.0, checks=0)"
    assert str(weak) == "CW-1x100(L2:3, lr=10.0, c=100.0, confidence=0.0, checks=10)"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"threat": Linf(0.1)}, "Linf:0.1.*give L2"),
        ({"searches": 0}, "0 searches of 60 iterations.*at least 1"),
        ({"iterations": 0}, "6 searches of 0 iterations.*at least 1"),
        ({"lr": 0.0}, "lr 0 and weight 1.*above 0"),
        ({"weight": -1.0}, "lr 0.02 and weight -1.*above 0"),
    ],
)
def test_bad_settings_raise(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        replace(SHORT, **wrong)


def foolboxs(attack: CarliniWagner, network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What foolbox's attack finds with the same settings; black where it finds nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=attack.searches,
        steps=attack.iterations,
        stepsize=attack.lr,
        initial_const=attack.weight,
        abort_early=attack.checks > 0,
    )
    return theirs.run(foolbox.PyTorchModel(network, bounds=(0, 1)), x, foolbox.criteria.Misclassification(y))


def test_foolbox_finds_the_same_distances() -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(32, 4)).eval()
    x = torch.rand(8, 3, 4, 4)
    y = network(x).argmax(1)
    attack = replace(SHORT, searches=5, iterations=50, lr=0.05)
    ours, theirs = lengths(run(attack, network, x, y), x), lengths(foolboxs(attack, network, x, y), x)
    torch.testing.assert_close(ours, theirs, rtol=0.01, atol=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_mnist_it_ends_as_near_as_foolbox(real_data: Path) -> None:
    weights = real_data / "classifiers" / "secml-mnist-smallcnn.pth"
    network = load_weights("smallcnn", weights, mean=0, std=1)
    x, y, _ = data.load("mnist", "test", real_data).batch(torch.arange(20))
    attack = CarliniWagner(L2(10), searches=5, iterations=150, lr=0.05, weight=0.1)
    ours, theirs = run(attack, network, x, y), foolboxs(attack, network, x, y)
    assert (network(ours).argmax(1) != y).all()
    assert lengths(ours, x).median() < 1.05 * lengths(theirs, x).median()
