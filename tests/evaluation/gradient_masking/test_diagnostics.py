"""Probes: networks of which each answer is known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers.masked_defenses import CarelessJPEG, FlipGradient, Purify, Quantize, RandomResize, Shatter
from torch import Tensor, nn
from torch.autograd import grad

from forefend.evaluation import model_checks
from forefend.evaluation.gradient_masking import diagnostics
from forefend.losses import margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

SIZE = 6
X = torch.rand(12, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 0.6 + 0.2
Y = torch.arange(12) % 3
DRAW = KeyedRNG(torch.arange(12), purpose="landscape")


def linear(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, classes)).requires_grad_(False)


class Scaled(nn.Module):
    """The first so many pixels, as logits times a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)[:, :3]


def test_zero_gradients_are_counted_image_by_image() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[0, 0, 0, 0] = 1.0  # right by a margin of 200 at this scale: cross-entropy is flat to float32
    x[1, 0, 0, 1] = 1.0  # wrong by 200: steep
    x[2, 0, 0, 0] = 0.01  # right by 2
    y = torch.zeros(3, dtype=torch.int64)
    assert diagnostics.zero_gradients(Scaled(200), x, y).tolist() == [True, False, False]
    assert diagnostics.zero_gradients(Scaled(200), x, y, margin).tolist() == [False, False, False]
    assert diagnostics.zero_gradients(Scaled(20), x, y).tolist() == [False, False, False]


def test_a_rounding_network_has_no_gradient_and_one_that_is_nan_counts_as_none() -> None:
    assert diagnostics.zero_gradients(nn.Sequential(Quantize(), linear()), X, Y).all()

    def rooted(x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :3] - x.flatten(1)[:, :3]).sqrt()

    assert diagnostics.zero_gradients(rooted, X, Y).all()
    assert not diagnostics.zero_gradients(linear(), X, Y).any()


class Coin(nn.Module):
    """Draws one of a few constants."""

    def __init__(self, sides: int) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.randint(0, self.sides, ())


@pytest.mark.parametrize(
    ("network", "random"),
    [
        (linear(), False),
        (nn.Sequential(nn.Dropout(0.5), linear()).eval(), False),
        (nn.Sequential(nn.Dropout(0.5), linear()).train(), True),
        (nn.Sequential(RandomResize(), linear()), True),
        (Coin(2), True),
        (Coin(1), False),
    ],
)
def test_random_is_what_answers_otherwise_when_asked_again(network: nn.Module, random: bool) -> None:
    state = torch.get_rng_state()
    assert model_checks.is_random(network, X) is random
    assert torch.equal(torch.get_rng_state(), state)


class Seldom(nn.Module):
    """Answers otherwise one time in four."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + (torch.rand(()) < 0.25)


def test_what_seldom_answers_otherwise_is_asked_often_enough() -> None:
    assert not model_checks.is_random(Seldom(), X, times=1)  # the first two numbers from seed 0 are 0.50 and 0.77
    assert model_checks.is_random(Seldom(), X)


class Ends(nn.Module):
    """A linear classifier with something at its end."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.end = linear(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.linear(x))


@pytest.mark.parametrize(
    ("end", "logits"),
    [
        (lambda z: z, True),
        (lambda z: z.softmax(1), False),
        (lambda z: z.log_softmax(1), True),
        (lambda z: z.abs(), True),  # positive, and not probabilities
        (lambda z: z - z.mean(1, keepdim=True) + 1 / 3, True),  # sums to one, and not positive
    ],
)
def test_probabilities_are_no_logits_and_their_logarithms_are(end: Callable[[Tensor], Tensor], logits: bool) -> None:
    assert model_checks.gives_logits(Ends(end), X) is logits


class NoGrad(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.flatten(1)[:, :3]


class Elsewhere(nn.Module):
    """Answers that ask for a gradient, of something else than the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1)[:, :3] + torch.zeros(3, requires_grad=True)


@pytest.mark.parametrize(
    ("network", "flows"),
    [
        (linear(), True),
        (nn.Sequential(Quantize(), linear()), True),  # zero, but there
        (NoGrad(), False),
        (nn.Sequential(CarelessJPEG(), linear()), False),  # raises where a gradient is asked for
        (Ends(lambda z: z.detach()), False),
        (Elsewhere(), False),
    ],
)
def test_a_gradient_flows_or_does_not(network: nn.Module, flows: bool) -> None:
    with torch.no_grad():
        assert model_checks.has_gradient(network, X[:2]) is flows
    assert not X.requires_grad


class Backwards(nn.Module):
    """Takes a gradient on its way, in a way of its own."""

    def __init__(self, way: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            self.way(z)
        return x.flatten(1)[:, :3]


WAYS: dict[str, Callable[[Tensor], Any]] = {
    "torch.autograd.grad": lambda z: torch.autograd.grad(z.square().sum(), z),
    "a function imported before": lambda z: grad(z.square().sum(), z),
    "Tensor.backward": lambda z: z.square().sum().backward(),
    "torch.autograd.backward": lambda z: torch.autograd.backward(z.square().sum()),
    "torch.func.grad": lambda z: torch.func.grad(lambda w: w.square().sum())(z),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_gradient_inside_is_seen(way: str) -> None:
    assert diagnostics.optimizes_inside(Backwards(WAYS[way]), X[:2])


def test_a_network_that_takes_none_is_not_accused_and_torch_is_put_back() -> None:
    engine = torch.autograd.Variable._execution_engine
    assert not diagnostics.optimizes_inside(linear(), X[:2])
    assert not diagnostics.optimizes_inside(Backwards(lambda z: z.square().sum()), X[:2])
    assert diagnostics.optimizes_inside(nn.Sequential(Purify(), linear()), X[:2])
    assert torch.autograd.Variable._execution_engine is engine

    def fails(z: Tensor) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        diagnostics.optimizes_inside(Backwards(fails), X[:2])
    assert torch.autograd.Variable._execution_engine is engine


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
def test_a_linear_margin_rises_along_its_gradient_at_every_distance_and_along_noise_by_chance(
    threat: ThreatModel,
) -> None:
    found = diagnostics.uphill(linear(2), X, Y % 2, threat, DRAW, loss=margin)
    assert list(found) == [0.02, 0.1, 0.5]
    assert {along for along, _ in found.values()} == {1.0}
    f = linear(2)
    for share, (_, random) in found.items():
        there = threat.project(X + threat.step(DRAW.normal(X), share * threat.radius), X)
        assert random == float((margin(f(there), Y % 2) > margin(f(X), Y % 2)).double().mean())
    assert 0 < found[0.02][1] < 1


def test_a_gradient_with_the_wrong_sign_goes_down_and_one_that_is_zero_goes_nowhere() -> None:
    threat = Linf(0.1)
    found = diagnostics.uphill(nn.Sequential(FlipGradient(), linear(2)), X, Y % 2, threat, DRAW, loss=margin)
    assert {along for along, _ in found.values()} == {0.0}
    found = diagnostics.uphill(nn.Sequential(Quantize(), linear(2)), X, Y % 2, threat, DRAW, loss=margin)
    assert {along for along, _ in found.values()} == {0.0}


def test_a_still_pipeline_draws_the_same_numbers_and_its_gradient_can_be_trusted() -> None:
    noisy = nn.Sequential(Shatter(), RandomResize(), linear(2))
    f = diagnostics.still(noisy, seed=4)
    state = torch.get_rng_state()
    assert torch.equal(f(X), f(X))
    assert torch.equal(torch.get_rng_state(), state)
    assert not all(torch.equal(diagnostics.still(noisy, seed=s)(X), f(X)) for s in range(5))
    resized = diagnostics.still(nn.Sequential(RandomResize(), linear(2)), seed=4)
    found = diagnostics.uphill(resized, X, Y % 2, Linf(0.1), DRAW, loss=margin)
    assert {along for along, _ in found.values()} == {1.0}


def test_frozen_networks_stay_so() -> None:
    network = linear()
    for probe in (partial(model_checks.has_gradient, network), partial(model_checks.is_random, network)):
        probe(X)
    diagnostics.zero_gradients(network, X, Y)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


class Cramped(nn.Module):
    """A network that has room for eight images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.sizes = network, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        answers: Tensor = self.network(x)
        return answers


@pytest.mark.parametrize("before", [nn.Identity(), Quantize(), FlipGradient()], ids=lambda m: type(m).__name__)
def test_where_there_is_room_for_few_images_the_same_is_found_in_parts(before: nn.Module) -> None:
    network, batch = nn.Sequential(before, linear(2)), (X, Y % 2, torch.arange(12))
    found = diagnostics.probe(network, batch, Linf(0.1), 3)
    assert found == diagnostics.probe(Cramped(network), batch, Linf(0.1), 3)
    facts, landscape = found
    assert facts | {"zero": 0} == {"random": 0, "flows": 1, "logits": 1, "optimizes": 0, "probed": 12, "zero": 0}
    assert facts["zero"] == (12 if isinstance(before, Quantize) else 0)
    assert landscape == diagnostics.uphill(network, X, Y % 2, Linf(0.1), DRAW, loss=margin)


def test_no_memory_is_not_taken_for_no_gradient() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        model_checks.has_gradient(Cramped(linear()), X)
