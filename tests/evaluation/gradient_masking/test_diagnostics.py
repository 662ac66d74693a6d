"""Diagnostics of networks whose properties are known."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers.masked_defenses import CarelessJPEG, FlipGradient, Purify, Quantize, RandomResize, Shatter
from torch import Tensor, nn
from torch.autograd import grad

from forefend.checks import InputError
from forefend.evaluation import model_checks
from forefend.evaluation.gradient_masking import diagnostics
from forefend.losses import margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

SIZE = 6
X = torch.rand(12, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 0.6 + 0.2
Y = torch.arange(12) % 3
RNG = KeyedRNG(torch.arange(12), purpose="landscape")


def linear(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, classes)).requires_grad_(False)


class Scaled(nn.Module):
    """The first three pixels as logits, times a scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)[:, :3]


def test_zero_gradients_are_found_per_image() -> None:
    x = torch.zeros(3, 1, 2, 2)
    x[0, 0, 0, 0] = 1.0  # correct with a margin of 200: cross-entropy is constant in float32
    x[1, 0, 0, 1] = 1.0  # wrong by 200
    x[2, 0, 0, 0] = 0.01  # correct with a margin of 2
    y = torch.zeros(3, dtype=torch.int64)
    assert diagnostics.zero_gradients(Scaled(200), x, y).tolist() == [True, False, False]
    assert diagnostics.zero_gradients(Scaled(200), x, y, margin).tolist() == [False, False, False]
    assert diagnostics.zero_gradients(Scaled(20), x, y).tolist() == [False, False, False]


def test_zero_gradients_of_rounding_are_all_and_nan_raises() -> None:
    assert diagnostics.zero_gradients(nn.Sequential(Quantize(), linear()), X, Y).all()

    def rooted(x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :3] - x.flatten(1)[:, :3]).sqrt()

    with pytest.raises(InputError, match="gradient of image 0"):
        diagnostics.zero_gradients(rooted, X, Y)
    assert not diagnostics.zero_gradients(linear(), X, Y).any()


class Coin(nn.Module):
    """Adds a random constant, one of a few."""

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
def test_is_random_detects_changing_outputs(network: nn.Module, random: bool) -> None:
    state = torch.get_rng_state()
    assert model_checks.is_random(network, X) is random
    assert torch.equal(torch.get_rng_state(), state)


class Rarely(nn.Module):
    """Returns another output one time in four."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + (torch.rand(()) < 0.25)


def test_is_random_detects_rare_changes() -> None:
    assert not model_checks.is_random(Rarely(), X, times=1)  # the first two numbers from seed 0 are 0.50 and 0.77
    assert model_checks.is_random(Rarely(), X)


class Followed(nn.Module):
    """A linear classifier followed by a function."""

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
def test_gives_logits_refuses_probabilities_only(end: Callable[[Tensor], Tensor], logits: bool) -> None:
    assert model_checks.gives_logits(Followed(end), X) is logits


class NoGrad(nn.Module):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x.flatten(1)[:, :3]


class Elsewhere(nn.Module):
    """The output has a gradient, but not with respect to the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1)[:, :3] + torch.zeros(3, requires_grad=True)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (linear(), True),
        (nn.Sequential(Quantize(), linear()), True),  # zero, but there
        (NoGrad(), False),
        (nn.Sequential(CarelessJPEG(), linear()), False),  # raises if a gradient is required
        (Followed(lambda z: z.detach()), False),
        (Elsewhere(), False),
    ],
)
def test_has_gradient_of_each_network(network: nn.Module, expected: bool) -> None:
    with torch.no_grad():
        assert model_checks.has_gradient(network, X[:2]) is expected
    assert not X.requires_grad


class WithBackward(nn.Module):
    """Computes a gradient in its forward pass."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            self.function(z)
        return x.flatten(1)[:, :3]


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "torch.autograd.grad": lambda z: torch.autograd.grad(z.square().sum(), z),
    "a function imported before": lambda z: grad(z.square().sum(), z),
    "Tensor.backward": lambda z: z.square().sum().backward(),
    "torch.autograd.backward": lambda z: torch.autograd.backward(z.square().sum()),
    "torch.func.grad": lambda z: torch.func.grad(lambda w: w.square().sum())(z),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_optimizes_inside_detects_every_backward_pass(name: str) -> None:
    assert diagnostics.optimizes_inside(WithBackward(FUNCTIONS[name]), X[:2])


def test_optimizes_inside_restores_torch() -> None:
    engine = torch.autograd.Variable._execution_engine
    assert not diagnostics.optimizes_inside(linear(), X[:2])
    assert not diagnostics.optimizes_inside(WithBackward(lambda z: z.square().sum()), X[:2])
    assert diagnostics.optimizes_inside(nn.Sequential(Purify(), linear()), X[:2])
    assert torch.autograd.Variable._execution_engine is engine

    def fails(z: Tensor) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        diagnostics.optimizes_inside(WithBackward(fails), X[:2])
    assert torch.autograd.Variable._execution_engine is engine


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
def test_loss_along_gradient_of_linear_margin_rises(
    threat: ThreatModel,
) -> None:
    found = diagnostics.loss_along_gradient(linear(2), X, Y % 2, threat, RNG, loss=margin)
    assert list(found) == [0.02, 0.1, 0.5]
    assert {along for along, _ in found.values()} == {1.0}
    f = linear(2)
    for share, (_, random) in found.items():
        moved = threat.project(X + threat.step(RNG.normal(X), share * threat.radius), X)
        assert random == float((margin(f(moved), Y % 2) > margin(f(X), Y % 2)).double().mean())
    assert 0 < found[0.02][1] < 1


def test_loss_along_wrong_gradient_does_not_rise() -> None:
    threat = Linf(0.1)
    found = diagnostics.loss_along_gradient(
        nn.Sequential(FlipGradient(), linear(2)), X, Y % 2, threat, RNG, loss=margin
    )
    assert {along for along, _ in found.values()} == {0.0}
    found = diagnostics.loss_along_gradient(nn.Sequential(Quantize(), linear(2)), X, Y % 2, threat, RNG, loss=margin)
    assert {along for along, _ in found.values()} == {0.0}


def test_fixed_randomness_repeats_its_draws() -> None:
    noisy = nn.Sequential(Shatter(), RandomResize(), linear(2))
    f = diagnostics.fixed_randomness(noisy, seed=4)
    state = torch.get_rng_state()
    assert torch.equal(f(X), f(X))
    assert torch.equal(torch.get_rng_state(), state)
    assert not all(torch.equal(diagnostics.fixed_randomness(noisy, seed=s)(X), f(X)) for s in range(5))
    resized = diagnostics.fixed_randomness(nn.Sequential(RandomResize(), linear(2)), seed=4)
    found = diagnostics.loss_along_gradient(resized, X, Y % 2, Linf(0.1), RNG, loss=margin)
    assert {along for along, _ in found.values()} == {1.0}


def test_diagnostics_keep_networks_frozen() -> None:
    network = linear()
    for probe in (partial(model_checks.has_gradient, network), partial(model_checks.is_random, network)):
        probe(X)
    diagnostics.zero_gradients(network, X, Y)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())


class Cramped(nn.Module):
    """A network that runs out of memory above eight images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.sizes = network, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        logits: Tensor = self.network(x)
        return logits


@pytest.mark.parametrize("before", [nn.Identity(), Quantize(), FlipGradient()], ids=lambda m: type(m).__name__)
def test_diagnose_with_little_memory_is_equal(before: nn.Module) -> None:
    network, batch = nn.Sequential(before, linear(2)), (X, Y % 2, torch.arange(12))
    found = diagnostics.diagnose(network, batch, Linf(0.1), 3)
    assert found == diagnostics.diagnose(Cramped(network), batch, Linf(0.1), 3)
    facts, landscape = found
    expected = {"random": 0, "has_gradient": 1, "logits": 1, "optimizes": 0, "repeats": 1, "mixes": 0, "probed": 12}
    expected |= {"black_box": 0}
    assert facts | {"zero": 0} == expected | {"zero": 0}
    assert facts["zero"] == (12 if isinstance(before, Quantize) else 0)
    assert landscape == diagnostics.loss_along_gradient(network, X, Y % 2, Linf(0.1), RNG, loss=margin)


def test_has_gradient_without_memory_raises() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        model_checks.has_gradient(Cramped(linear()), X)


def test_has_gradient_of_network_with_in_place_layer_raises() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(X[0].numel(), 3))
    with pytest.raises(InputError, match="inplace=False"):
        model_checks.has_gradient(network, X[:2])
