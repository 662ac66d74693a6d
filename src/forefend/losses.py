"""Losses: functions `(prediction, target) -> (B,)`, one number for each image, without reduction.

Attacks maximize them, and recipes minimize their mean. `logits` are `(B, K)`, labels `y` are `(B,)`
int64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.runtime.labels import label_of, labeled

Loss = Callable[[Any, Any], Tensor]


@labeled("ce")
def ce(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy in nats.

    Args:
        logits: `(B, K)`.
        y: labels, `(B,)` int64.

    Returns:
        `(B,)`.

    >>> ce(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    return F.cross_entropy(logits, y, reduction="none")


@labeled("margin")
def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest wrong logit minus the correct one: positive exactly if misclassified.

    Args:
        logits: `(B, K)`.
        y: labels, `(B,)` int64.

    Returns:
        `(B,)`.

    >>> margin(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([1]))
    tensor([2.])
    """
    return _best_other(logits, y) - _at(logits, y)


@labeled("probability_margin")
def probability_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest probability of a wrong class minus that of the correct one, in [-1, 1].

    It rises little where one class is certain, and has the zeros of `margin`. Source: the minimized
    difference of probabilities of PMA (2411.15210).

    Args:
        logits: `(B, K)`.
        y: labels, `(B,)` int64.

    Returns:
        `(B,)`.

    >>> probability_margin(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([2]))
    tensor([0.5000])
    """
    return margin(logits.softmax(1), y)


@labeled("dlr")
def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio: the margin over the range of the top three logits.

    It is invariant to the scale of the logits. Needs three classes or more. Source: Croce and Hein,
    2003.01690, Eq. 6.
    """
    ranked = logits.sort(dim=1, descending=True).values
    return margin(logits, y) / (ranked[:, 0] - ranked[:, 2] + 1e-12)


@labeled("kl")
def kl(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Return the KL divergence of softmax(logits) from softmax(target_logits), in nats."""
    log_p, log_q = logits.log_softmax(1), target_logits.log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum(1)


@labeled("boosted_ce")
def boosted_ce(logits: Tensor, y: Tensor) -> Tensor:
    """Return the boosted cross-entropy, which also lowers the largest probability of a wrong class.

    Source: JATP (2106.05453), Eq. 7, after MART (ICLR 2020); 1.0001 keeps the logarithm finite, as
        MART's code does.
    """
    p = logits.softmax(1)
    return ce(logits, y) - (1.0001 - _best_other(p, y)).log()


@labeled("soft_margin")
def soft_margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the log-sum-exp of the wrong logits minus the correct one, MMA's soft margin.

    Source: MMA (1812.02637), Eq. 8.
    """
    others = logits.scatter(1, y[:, None], float("-inf"))
    return others.logsumexp(1) - _at(logits, y)


@labeled("mse")
def mse(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of two images or activations, for each image."""
    return (a - b).square().flatten(1).mean(1)


@labeled("sse")
def sse(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of squared differences of two images or activations, for each image."""
    return (a - b).square().flatten(1).sum(1)


@labeled("mae")
def mae(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of images, activations or logits, for each image."""
    return (a - b).abs().flatten(1).mean(1)


@labeled("euclidean")
def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Return the Euclidean distance of two images; its gradient is finite where they are equal."""
    return ((a - b).square().flatten(1).sum(1) + 1e-12).sqrt()


@labeled("huber_mean")
def huber_mean(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Return the Huber loss (β = 1) of each logit, averaged over the K logits.

    Source: RTFE Eqs. 5 and 6, applied elementwise; with vector norms, it is not continuous.
    """
    return F.huber_loss(logits, target_logits, reduction="none").mean(1)


@labeled("huber_sum")
def huber_sum(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Return the Huber loss (β = 1) summed over the K logits: K times `huber_mean`."""
    return F.huber_loss(logits, target_logits, reduction="none").sum(1)


@labeled("huber_vector")
def huber_vector(logits: Tensor, target_logits: Tensor) -> Tensor:
    """Return RTFE's Eq. 6 as printed, ½‖d‖₂² where ‖d‖₁ ≤ 1, else ‖d‖₁ − ½; discontinuous."""
    d = logits - target_logits
    taxicab = d.abs().sum(1)
    return torch.where(taxicab <= 1, d.square().sum(1) / 2, taxicab - 0.5)


@dataclass(frozen=True)
class Mean:
    """The mean of a loss over several predictions, for one common target or one target each.

    Args:
        loss: the loss of each prediction.

    Source: RTFE Eqs. 8 and 9, which average losses, not logits.
    """

    loss: Loss

    def __call__(self, predictions: Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the mean loss, `(B,)`."""
        targets = [target] * len(predictions) if isinstance(target, Tensor) else target
        return torch.stack([self.loss(p, t) for p, t in zip(predictions, targets, strict=True)]).mean(0)

    def __str__(self) -> str:
        return f"mean {label_of(self.loss)}"


# By the second argument: labels, or another output of the same shape.
LABEL_LOSSES = (boosted_ce, ce, dlr, margin, probability_margin, soft_margin)
PAIR_LOSSES = (euclidean, huber_mean, huber_sum, huber_vector, kl, mae, mse, sse)


def _at(logits: Tensor, y: Tensor) -> Tensor:
    return logits.gather(1, y[:, None]).squeeze(1)


def _best_other(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest entry of a class other than y."""
    return logits.scatter(1, y[:, None], float("-inf")).amax(1)


@labeled("mean_probability")
def mean_probability(logits: Tensor) -> Tensor:
    """Return the logarithm of the mean softmax of n logits, `(n, B, K)` to `(B, K)`.

    The mean is the chance of each class in a randomized model. Used as logits, the result has these
    chances as its softmax: `ce` is −log of the chance of the correct class, and `margin` is
    positive exactly where another class is more likely. The sum in the logarithm rounds no
    probability to zero.

    Source: Athalye, Carlini and Wagner, 1802.00420, section 4.2.
    """
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))
