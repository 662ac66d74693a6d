"""Bug-only adversarial examples (Nakkiran, 2019), which RTFE turns round."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce
from forefend.runtime.labels import labeled
from forefend.threat_models.base import ThreatModel


@labeled("bug_loss")
def bug_loss(predictions: Sequence[Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
    """Rises as the first classifier comes to believe the target class and the others keep the right one: `(B,)`.

    Args:
        predictions: logits of the attacked classifier, then of each member of the ensemble.
        target: the class to be believed and the right class, each `(B,)`.

    Source: RTFE (2209.06931), Eq. 7, negated, as attacks maximize.
    """
    y_targ, y = target
    return -ce(predictions[0], y_targ) - Mean(ce)(predictions[1:], y)


def bugs(threat: ThreatModel, steps: int, step_size: float) -> PGD:
    """Perturbations that exploit one classifier's bugs and no shared feature, so that they do not transfer.

    Hand it `pipelines(g, [classifier, *ensemble])` and the target `(y_targ, y)`. Source: RTFE, Eq. 7.
    """
    return PGD(threat, steps, step_size, loss=bug_loss)


def shared_features(threat: ThreatModel, steps: int, step_size: float) -> PGD:
    """The inverse: perturbations that mislead every member, so exploit what they share. Source: RTFE, Eq. 8."""
    return PGD(threat, steps, step_size, loss=Mean(ce))
