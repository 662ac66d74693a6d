from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend import losses
from forefend.losses import (
    Loss,
    Mean,
    boosted_ce,
    ce,
    dlr,
    euclidean,
    huber_mean,
    huber_sum,
    huber_vector,
    kl,
    mae,
    margin,
    mse,
    probability_margin,
    soft_margin,
    sse,
)
from forefend.runtime.labels import label_of

ON_LABELS = [ce, margin, probability_margin, dlr, boosted_ce, soft_margin]
ON_PAIRS = [kl, huber_mean, huber_sum, huber_vector, mse, sse, mae, euclidean]
LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.5, 3.0, -2.0, 1.0]])
Y = torch.tensor([0, 3])


def some_logits(seed: int, count: int = 5, classes: int = 4) -> Tensor:
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_margin_and_dlr_match_known_values() -> None:
    torch.testing.assert_close(margin(LOGITS, Y), torch.tensor([-1.0, 2.0]))
    torch.testing.assert_close(dlr(LOGITS, Y), torch.tensor([-1 / 2, 2 / 2.5]))


def test_probability_margin_matches_known_values() -> None:
    logits = torch.tensor([[1.0, 2.0, 5.0], [5.0, 2.0, 1.0]]).log()  # softmax gives eighths
    found = probability_margin(logits, torch.tensor([2, 2]))
    torch.testing.assert_close(found, torch.tensor([-3 / 8, 4 / 8]))


def test_ce_matches_known_values() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    torch.testing.assert_close(ce(logits, torch.tensor([0, 1])), torch.tensor([math.log(4), math.log(4 / 3)]))


def test_boosted_ce_and_soft_margin_match_known_values() -> None:
    logits = torch.tensor([[1.0, 2.0, 5.0], [5.0, 2.0, 1.0]]).log()  # softmax gives eighths
    y = torch.tensor([2, 2])
    expected = [-math.log(5 / 8) - math.log(1.0001 - 2 / 8), -math.log(1 / 8) - math.log(1.0001 - 5 / 8)]
    torch.testing.assert_close(boosted_ce(logits, y), torch.tensor(expected))
    torch.testing.assert_close(soft_margin(logits, y), torch.tensor([math.log(3 / 5), math.log(7)]))


def test_boosted_ce_of_certain_wrong_class_is_finite() -> None:
    logits = torch.tensor([[0.0, 200.0, 0.0]]).requires_grad_()
    loss = boosted_ce(logits, torch.tensor([0]))
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


@given(seed=st.integers(0, 2**31))
def test_soft_margin_softplus_is_ce_and_exceeds_margin(seed: int) -> None:
    logits, y = some_logits(seed), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(F.softplus(soft_margin(logits, y)), ce(logits, y))
    gap = soft_margin(logits, y) - margin(logits, y)
    assert ((gap > 0) & (gap <= math.log(3))).all()


def test_image_distances_match_known_values() -> None:
    a, b = torch.zeros(2, 1, 2, 2), torch.tensor([[3.0, 0, 0, -4], [0, 0, 0, 0]]).view(2, 1, 2, 2)
    torch.testing.assert_close(mse(a, b), torch.tensor([25 / 4, 0.0]))
    torch.testing.assert_close(sse(a, b), torch.tensor([25.0, 0.0]))
    torch.testing.assert_close(mae(a, b), torch.tensor([7 / 4, 0.0]))
    torch.testing.assert_close(euclidean(a, b), torch.tensor([5.0, 0.0]), atol=2e-6, rtol=0)
    b.requires_grad_()
    gradient = torch.autograd.grad(euclidean(a, b).sum(), b)[0]
    torch.testing.assert_close(gradient.flatten(1), torch.tensor([[0.6, 0, 0, -0.8], [0, 0, 0, 0]]))


def test_kl_matches_known_values() -> None:
    uniform, skewed = torch.zeros(1, 2), torch.tensor([[0.0, math.log(3.0)]])  # (1/2, 1/2) and (1/4, 3/4)
    torch.testing.assert_close(kl(skewed, uniform), torch.tensor([0.5 * math.log(2) + 0.5 * math.log(2 / 3)]))
    torch.testing.assert_close(kl(uniform, skewed), torch.tensor([0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)]))


@given(seed=st.integers(0, 2**31))
def test_losses_match_torch(seed: int) -> None:
    a, b, y = some_logits(seed), some_logits(seed + 1), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(ce(a, y).mean(), F.cross_entropy(a, y))
    expected = F.kl_div(a.log_softmax(1), b.log_softmax(1), reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(kl(a, b), expected)
    torch.testing.assert_close(huber_mean(a, b).mean(), F.smooth_l1_loss(a, b))
    torch.testing.assert_close(margin(a, y).clamp_min(-1).add(1), _crammer_singer(a, y))


def _crammer_singer(logits: Tensor, y: Tensor) -> Tensor:
    """max(0, 1 + margin), row by row through torch's pairwise hinge: its largest term."""
    hinge = [(1 + logits[i] - logits[i, y[i]]).clamp_min(0)[torch.arange(4) != y[i]].max() for i in range(len(y))]
    return torch.stack(hinge)


@pytest.mark.parametrize("loss", ON_LABELS + ON_PAIRS)
def test_loss_is_per_image_with_correct_gradient(loss: Loss) -> None:
    logits = some_logits(1).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 0]) if loss in ON_LABELS else some_logits(2)
    assert loss(logits, target).shape == (5,)
    assert torch.autograd.gradcheck(partial(_against, loss, target), (logits,))
    alone = torch.cat([loss(logits[i : i + 1], target[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(alone, loss(logits, target))


def _against(loss: Loss, target: Tensor, logits: Tensor) -> Tensor:
    return loss(logits, target)


def test_losses_are_all_covered_here() -> None:
    public = {name for name, value in vars(losses).items() if callable(value) and value.__module__ == losses.__name__}
    tested = {label_of(loss) for loss in ON_LABELS + ON_PAIRS}
    assert {name for name in public if not name.startswith("_")} == tested | {"Mean", "mean_probability"}


@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3), shift=st.floats(-10, 10))
def test_dlr_is_invariant_to_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    logits, y = some_logits(seed), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(dlr(scale * logits + shift, y), dlr(logits, y), rtol=1e-6, atol=1e-6)
    right = logits.argmax(1)
    assert ((dlr(logits, right) >= -1) & (dlr(logits, right) < 0)).all()


@given(seed=st.integers(0, 2**31))
def test_margin_is_positive_iff_misclassified(seed: int) -> None:
    logits, y = some_logits(seed), torch.tensor([0, 1, 2, 3, 0])
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)
    assert torch.equal(dlr(logits, y) > 0, logits.argmax(1) != y)


def test_margin_of_tie_is_zero() -> None:
    assert margin(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([1])) == 0


def test_ce_of_large_logits_does_not_overflow() -> None:
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    torch.testing.assert_close(ce(logits, torch.tensor([0, 0])), torch.tensor([0.0, 1000.0]))


@given(seed=st.integers(0, 2**31))
def test_divergences_are_zero_only_between_equals(seed: int) -> None:
    a, b = some_logits(seed), some_logits(seed + 1)
    for loss in ON_PAIRS:
        assert (loss(a, b) > 0).all()
        torch.testing.assert_close(loss(a, a), torch.zeros(5, dtype=torch.float64), atol=1.1e-6, rtol=0)
    torch.testing.assert_close(kl(a + 7, b), kl(a, b))


def test_huber_variants_match_known_values() -> None:
    d = torch.tensor([[0.5, 0.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.0], [2.0, -0.5, 0.0, 0.0]])
    zero = torch.zeros(4, 4)
    torch.testing.assert_close(huber_sum(d, zero), torch.tensor([0.125, 2.5, 0.09375, 1.625]))
    torch.testing.assert_close(huber_mean(d, zero), torch.tensor([0.125, 2.5, 0.09375, 1.625]) / 4)
    torch.testing.assert_close(huber_vector(d, zero), torch.tensor([0.125, 2.5, 0.09375, 2.0]))
    torch.testing.assert_close(huber_vector(zero, d), huber_vector(d, zero))


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_huber_sum_is_k_times_huber_mean(classes: int) -> None:
    a, b = some_logits(3, classes=classes), some_logits(4, classes=classes)
    torch.testing.assert_close(huber_sum(a, b), classes * huber_mean(a, b))


def test_only_huber_vector_is_discontinuous() -> None:
    zero = torch.zeros(1, 2, dtype=torch.float64)
    below, above = zero + 0.5, zero + 0.5 + 1e-9
    assert huber_vector(below, zero) == 0.25
    assert huber_vector(above, zero) == pytest.approx(0.5)
    for continuous in (huber_mean, huber_sum):
        assert continuous(above, zero) == pytest.approx(float(continuous(below, zero)))
    sparse = torch.tensor([[1.0, 0.0]]).double()  # with one entry alone the branches meet
    assert huber_vector(sparse + 1e-9 * sparse, zero) == pytest.approx(float(huber_vector(sparse, zero)))


@pytest.mark.parametrize("loss", ON_LABELS + ON_PAIRS)
def test_mean_of_one_member_is_the_loss(loss: Loss) -> None:
    target = torch.tensor([0, 1, 2, 3, 0]) if loss in ON_LABELS else some_logits(2)
    assert torch.equal(Mean(loss)([some_logits(1)], target), loss(some_logits(1), target))
    assert torch.equal(Mean(loss)([some_logits(1)], [target]), loss(some_logits(1), target))


def test_mean_averages_losses_not_logits() -> None:
    members, y = (some_logits(1), some_logits(2), some_logits(3)), torch.tensor([0, 1, 2, 3, 0])
    got = Mean(ce)(members, y)
    torch.testing.assert_close(got, (ce(members[0], y) + ce(members[1], y) + ce(members[2], y)) / 3)
    assert (got - ce(torch.stack(members).mean(0), y)).abs().max() > 1e-3


def test_mean_accepts_one_target_per_member() -> None:
    a, b = some_logits(1), some_logits(2)
    torch.testing.assert_close(Mean(huber_mean)([a, b], [b, a]), huber_mean(a, b))
    assert (Mean(huber_mean)([a, b], [a, b]) == 0).all()
    with pytest.raises(ValueError, match="zip"):
        Mean(huber_mean)([a, b], [a])


def test_labels_of_losses_are_frozen() -> None:
    names = ["ce", "margin", "probability_margin", "dlr", "boosted_ce", "soft_margin"]
    assert [label_of(loss) for loss in ON_LABELS] == names
    assert label_of(Mean(huber_mean)) == str(Mean(huber_mean)) == "mean huber_mean"
    assert Mean(ce) == Mean(ce) != Mean(kl)
