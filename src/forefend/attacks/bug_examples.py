"""Bug-only adversarial examples (Nakkiran, 2019), whose inverse RTFE trains on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce
from forefend.runtime.labels import labeled
from forefend.threat_models.base import ThreatModel


@labeled("bug_loss")
def bug_loss(predictions: Sequence[Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
    """Return `(B,)`, large where the first classifier predicts the target class and the others the right one.

    Args:
        predictions: logits of the attacked classifier, then of each member of the ensemble.
        target: the target class and the right class, each `(B,)`.

    Source: RTFE (2209.06931), Eq. 7, negated, as attacks maximize.
    """
    y_targ, y = target
    return -ce(predictions[0], y_targ) - Mean(ce)(predictions[1:], y)


def bugs(threat: ThreatModel | str, steps: int = 20, step_size: float | None = None) -> PGD:
    """Return PGD for perturbations that exploit one classifier's bugs and do not transfer.

    Call it on `pipelines(g, [classifier, *ensemble])` with the target `(y_targ, y)`. Source: RTFE, Eq. 7.
    """
    return PGD(threat, steps, step_size, loss=bug_loss)


def shared_features(threat: ThreatModel | str, steps: int = 20, step_size: float | None = None) -> PGD:
    """Return PGD for perturbations that mislead every member of an ensemble. Source: RTFE, Eq. 8."""
    return PGD(threat, steps, step_size, loss=Mean(ce))
