"""AutoAttack's figure for less: cheap attacks first, AutoAttack on what they left standing."""

from __future__ import annotations

from collections.abc import Sequence

from ..attacks.apgd import APGD
from ..attacks.autoattack import AutoAttack
from ..attacks.pgd import PGD
from ..losses import dlr, margin
from ..running import until_lost
from ..swift import Swift
from ..threat import ThreatModel, models
from ..trial import After, Trial


def cascade(threats: Sequence[ThreatModel], classes: int) -> list[Trial]:
    """PGD-10, then APGD-20 on the difference of logits, each until lost, then AutoAttack as in `standard`.

    A bf16 copy proposes to the first two, and the subject decides. An image is lost if it is lost to any of the three,
    so that no image stands here that AutoAttack breaks alone, but for AutoAttack's own luck, which hangs on who shares
    a batch. What is saved are AutoAttack's gradients on images that few steps break; who stands costs as much as ever.

    Args:
        threats: one for each radius, in l∞ or l2.
        classes: how many logits the classifiers give.
    """
    trials = []
    for threat in models(threats):
        apgd = APGD(threat, 20, loss=dlr if classes > 2 else margin)
        stages = (
            Trial("PGD-10", PGD(threat, 10, threat.radius / 4), threat, sees=Swift(), run=until_lost),
            Trial("APGD-20", apgd, threat, sees=Swift(), run=until_lost),
        )
        trials.append(Trial("cascade", AutoAttack(threat, classes), threat, run=After(stages)))
    return trials
