"""Bug-only adversarial examples (Nakkiran, 2019), whose inverse RTFE trains on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.losses import Mean, ce
from forefend.runtime.labels import labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel


@labeled("bug_loss")
def bug_loss(predictions: Sequence[Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
    """Return `(B,)`, large where the first classifier predicts the target class and the others the right one.

    Args:
        predictions: logits of the attacked classifier, then of each member of the ensemble.
        target: the target class and the right class, each `(B,)`.

    Source: RTFE (2209.06931), Eq. 7, negated, as attacks maximize.
    """
    if not (isinstance(predictions, list | tuple) and isinstance(target, list | tuple) and len(target) == 2):
        raise InputError(
            "bugs attacks a pipeline of several classifiers at a pair (target class, label): "
            "evaluate it with forefend.suites.bug_examples."
        )
    y_targ, y = target
    return -ce(predictions[0], y_targ) - Mean(ce)(predictions[1:], y)


@labeled("likeliest_wrong_class")
def likeliest_wrong_class(
    f: Callable[[Tensor], Sequence[Tensor]], x: Tensor, y: Tensor, rng: KeyedRNG
) -> tuple[Tensor, Tensor]:
    """Return the target of `bug_loss`: the likeliest wrong class of the first classifier, and the labels."""
    return f(x)[0].scatter(1, y[:, None], float("-inf")).argmax(1), y


def bugs(threat: ThreatModel | str, steps: int = 20, step_size: float | None = None) -> PGD:
    """Return PGD for perturbations that exploit one classifier's bugs and do not transfer.

    Call it on `pipelines(g, [classifier, *ensemble])` with the target `(y_targ, y)`. Source: RTFE, Eq. 7.
    """
    return PGD(threat, steps, step_size, loss=bug_loss)


def shared_features(threat: ThreatModel | str, steps: int = 20, step_size: float | None = None) -> PGD:
    """Return PGD for perturbations that mislead every member of an ensemble. Source: RTFE, Eq. 8."""
    return PGD(threat, steps, step_size, loss=Mean(ce))
