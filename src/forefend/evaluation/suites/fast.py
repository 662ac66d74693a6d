"""The suite `fast`: a verdict near AutoAttack's for about a tenth of its cost."""

from __future__ import annotations

from collections.abc import Sequence

from forefend.attacks.apgd_rotation import APGDRotation
from forefend.attacks.budget import Budgeted
from forefend.attacks.square import Square
from forefend.evaluation.access import Access
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.trial import Cascade, Trial
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_models

GRADIENTS, QUERIES = 20, 40  # the smallest budgets
SMALL = 0.025  # area of the first square: the image is near success, and a large square would undo that


def fast(threats: str | ThreatModel | Sequence[str | ThreatModel], classes: int = 10) -> list[Trial]:
    """Return APGD on four losses and then Square, each image until success or until its budget is spent.

    An image whose margin does not fall gets 20 gradients and 40 queries; one that is nearly
    misclassified up to 720 and 2,000. Square goes on from the nearest image that the gradients
    found. An optimized copy in fp32 computes the gradients, and the model itself decides. This is
    not AutoAttack, and its records name these attacks: an accuracy to publish comes from `standard`.

    Args:
        threats: threat models or their names, in l∞ or l2.
        classes: the number of logits.
    """
    trials = []
    for threat in as_threat_models(threats):
        rotation = Budgeted(APGDRotation(threat, classes), GRADIENTS)
        gradients = Trial("fast gradients", rotation, threat, access=Access(precision="fp32"), run=stop_at_success)
        square = Budgeted(Square(threat, 2000, area=SMALL, horizon=200_000), QUERIES)
        trials.append(Trial("fast", square, threat, run=Cascade((gradients,), stop_at_success)))
    return trials
