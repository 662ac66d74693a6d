from __future__ import annotations

import copy
import math

import pytest
import torch
from helpers.toy_networks import classifier as toy_classifier
from helpers.toy_networks import held, preprocessor, untouched
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from forefend.attacks.base import input_gradient
from forefend.attacks.eot_bpda import bpda, bpda_defended, eot, identity, mean_output
from forefend.attacks.pgd import PGD, from_x
from forefend.checks import InputError
from forefend.losses import ce, dlr, margin, mean_probability
from forefend.models.defended import Defended
from forefend.models.guide import Guide
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf


class Quantizer(nn.Module):
    """Eight gray levels, in a form that autograd may but need not follow."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 7).round() / 7


class Detached(nn.Module):
    """Eight gray levels by way of numpy."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy((x.numpy() * 7).round() / 7)


class Noisy(nn.Module):
    """Adds standard normal noise of the given size, in training and out of it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x + self.size * torch.randn_like(x)


def linear(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes)).double()


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


X, Y = images(), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize("quantizer", [Quantizer(), Detached()])
def test_bpda_gradient_replaces_a_zero_or_missing_gradient(quantizer: nn.Module) -> None:
    classifier = linear()
    weight = classifier[1].weight.detach()
    if isinstance(quantizer, Quantizer):
        assert not input_gradient(nn.Sequential(quantizer, classifier), X, Y, logit_sum).any()
    gradient = input_gradient(nn.Sequential(bpda(quantizer), classifier), X, Y, logit_sum)
    torch.testing.assert_close(gradient, weight[Y].view_as(X), atol=0, rtol=0)


def logit_sum(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def test_the_gradient_is_taken_at_the_preprocessed_image() -> None:
    """Not at the image itself: the square after the quantizer has gradient 2 q(x), and not 2 x."""
    gradient = input_gradient(nn.Sequential(bpda(Quantizer()), nn.Flatten()), X, Y, lambda z, _: z.square().sum(1))
    torch.testing.assert_close(gradient, 2 * Quantizer()(X))
    assert (gradient - 2 * X).abs().max() > 0.05


def test_bpda_of_the_identity_is_the_plain_gradient() -> None:
    classifier = linear()
    gradient = input_gradient(nn.Sequential(bpda(nn.Identity()), classifier), X, Y, ce)
    assert torch.equal(gradient, input_gradient(classifier, X, Y, ce))


def test_bpda_with_itself_as_backward_is_the_plain_gradient() -> None:
    g, classifier = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh()).double(), linear()
    through = input_gradient(nn.Sequential(bpda(g, g), classifier), X, Y, ce)
    assert torch.equal(through, input_gradient(nn.Sequential(g, classifier), X, Y, ce))


def test_gradient_is_that_of_the_backward_function() -> None:
    blur = nn.AvgPool2d(3, stride=1, padding=1)
    f = nn.Sequential(bpda(Quantizer(), blur), nn.Flatten())
    weights = torch.rand(16, dtype=torch.float64)
    gradient = input_gradient(f, X, Y, lambda z, _: z @ weights)
    assert torch.equal(gradient, input_gradient(nn.Sequential(blur, nn.Flatten()), X, Y, lambda z, _: z @ weights))


@given(st.integers(0, 10**6), st.sampled_from([torch.float32, torch.float64]))
def test_bpda_output_equals_the_preprocessor_bit_for_bit(seed: int, dtype: torch.dtype) -> None:
    x = torch.rand(2, 1, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    for requires_grad in (False, True):
        images = x.clone().requires_grad_(requires_grad)
        assert torch.equal(bpda(Quantizer())(images), Quantizer()(x))
        assert torch.equal(bpda(Quantizer(), lambda t: 1e8 * t)(images), Quantizer()(x))


def test_a_classifier_may_begin_in_place() -> None:
    network = nn.Sequential(bpda(nn.Identity()), nn.ReLU(inplace=True), nn.Flatten())
    x = X.clone()
    assert torch.equal(input_gradient(network, x, Y, lambda z, _: z.sum(1)), torch.ones_like(x))
    assert torch.equal(x, X)


def test_bpda_with_another_output_shape_raises() -> None:
    with pytest.raises(InputError, match=r"\(5, 1, 2, 2\).*\(5, 1, 4, 4\).*shape"):
        bpda(Quantizer(), nn.AvgPool2d(2))(X)


def test_pgd_needs_bpda_to_reach_the_optimum() -> None:
    classifier, y = linear(2), Y % 2
    defended = Defended(Quantizer(), classifier)
    attack, rng = PGD(Linf(0.3), 6, 0.1, loss=margin, start=from_x), KeyedRNG(torch.arange(len(X)))
    assert torch.equal(attack(defended, X, y, rng=rng), X)
    uphill = (classifier[1].weight[1 - y] - classifier[1].weight[y]).detach().view_as(X)
    best = (X + 0.3 * uphill.sign()).clamp(0, 1)
    torch.testing.assert_close(attack(bpda_defended(defended), X, y, rng=rng), best)
    assert (margin(defended(best), y) > margin(defended(X), y) + 0.1).all()


def test_bpda_defended_keeps_outputs_and_the_original() -> None:
    x = torch.rand(4, 1, 6, 6)
    network = toy_classifier().train()
    defended = Defended(preprocessor().train(), network)
    before, before_network = held(defended), held(network)
    view = bpda_defended(defended)
    assert isinstance(view, Defended)
    assert view.classifier is defended.classifier
    assert isinstance(view.classifier, Guide)
    PGD(L2(0.5), 2, 0.2)(view, x, torch.zeros(4, dtype=torch.int64), rng=KeyedRNG(torch.arange(4)))
    assert untouched(defended, before)
    assert untouched(network, before_network)
    with torch.no_grad():
        assert torch.equal(view.eval()(x), copy.deepcopy(defended).eval()(x))


def test_bpda_defended_returns_undefended_models_unchanged() -> None:
    network = toy_classifier()
    assert bpda_defended(network) is network


def test_inner_networks_are_in_eval_mode_and_restored() -> None:
    modes: list[bool] = []

    class Spy(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(self.training)
            return super().forward(x)

    g, stand_in = Spy(1).double().train(), Spy(1).double().train()
    network = eot(nn.Sequential(bpda(g, stand_in), linear()), 2)
    before = held(network)
    PGD(Linf(0.1), 1, 0.1)(network, X, Y, rng=KeyedRNG(torch.arange(len(X))))
    assert modes == [False] * 4
    assert untouched(network, before)


def test_eot_of_a_noisy_linear_model_converges_to_the_mean() -> None:
    """Noise of size s on the images is Gaussian noise on the logits with a mean that is known, with 1/√n to go."""
    classifier, n, size = linear(), 4000, 0.5
    weight = classifier[1].weight.detach()
    with torch.no_grad():
        found = eot(nn.Sequential(Noisy(size), classifier), n, mean_output)(X)
    error = size * weight.norm(dim=1) / math.sqrt(n)
    assert ((found - classifier(X)).abs() < 5 * error).all()
    assert ((found - classifier(X)).abs() > error / 100).any()


def test_eot_of_noisy_probabilities_converges_to_the_mean() -> None:
    """Two classes, so E softmax is a one-dimensional integral of a sigmoid, done here on a grid."""
    classifier, n = linear(2), 20000
    weight = (classifier[1].weight[1] - classifier[1].weight[0]).detach()
    logits = classifier(X[:1]).detach()
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = (-grid.square() / 2).exp() / math.sqrt(2 * math.pi)
    spread = 3 * weight.norm()
    exact = torch.trapezoid(density * (logits[0, 1] - logits[0, 0] + spread * grid).sigmoid(), grid)
    with torch.no_grad():
        found = eot(nn.Sequential(Noisy(3.0), classifier), n)(X[:1]).softmax(1)[0, 1]
    assert abs(found - exact) < 5 * 0.5 / math.sqrt(n)
    assert abs(found - (logits[0, 1] - logits[0, 0]).sigmoid()) > 0.003


@given(st.integers(1, 6), st.integers(0, 10**6))
def test_the_mean_probability_is_the_mean_of_the_softmaxes(n: int, seed: int) -> None:
    logits = 10 * torch.randn(n, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(mean_probability(logits).exp(), logits.softmax(2).mean(0))


def test_no_probability_is_rounded_to_zero() -> None:
    logits = torch.tensor([[[400.0, 0.0]], [[600.0, 0.0]]], requires_grad=True)
    answer = mean_probability(logits)
    answer[0, 1].backward()
    assert float(answer[0, 1].detach()) == pytest.approx(-400 - math.log(2))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_one_forward_leaves_the_losses_as_they_are() -> None:
    classifier = linear(4)
    for loss in (ce, margin, dlr):
        torch.testing.assert_close(loss(eot(classifier, 1)(X), Y), loss(classifier(X), Y))


def test_the_gradient_is_that_of_the_mean() -> None:
    """Against autograd on the mean written out, with the same noise."""
    network = nn.Sequential(Noisy(1.0), linear())
    torch.manual_seed(5)
    found = input_gradient(eot(network, 3), X, Y, ce)
    torch.manual_seed(5)
    plain = lambda x: sum(network(x).softmax(1) for _ in range(3)) / 3  # noqa: E731
    expected = input_gradient(plain, X, Y, lambda p, y: -p.gather(1, y[:, None]).squeeze(1).log())
    torch.testing.assert_close(found, expected)


def test_eot_repeats_itself_when_torch_is_seeded_and_only_then() -> None:
    network = eot(nn.Sequential(Noisy(1.0), linear()), 3)
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append(network(X))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("n", [0, -3])
def test_eot_without_forward_passes_raises(n: int) -> None:
    with pytest.raises(InputError, match=f"{n} forward passes.*at least 1"):
        eot(linear(), n)


def test_eot_of_several_outputs_raises() -> None:
    with pytest.raises(InputError, match=r"one tensor.*tuple"):
        eot(lambda x: (x, x), 2)(X)  # type: ignore[arg-type, return-value]


def test_names_are_stable() -> None:
    defended = Defended(Quantizer(), linear())
    assert str(bpda(Quantizer())) == "BPDA(Quantizer, identity)"
    assert str(bpda(Quantizer(), nn.AvgPool2d(3))) == "BPDA(Quantizer, AvgPool2d)"
    assert str(eot(defended, 20)) == "EOT-20(Defended, mean_probability)"
    assert str(eot(bpda(Quantizer()), 5, mean_output)) == "EOT-5(BPDA(Quantizer, identity), mean_output)"
    assert str(eot(identity, 5)) == "EOT-5(identity, mean_probability)"
