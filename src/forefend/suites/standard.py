"""What is reported to others: AutoAttack, and what an attacker without gradients can do."""

from __future__ import annotations

from collections.abc import Sequence

from ..attacks.autoattack import AutoAttack
from ..attacks.pgd import PGD
from ..threat import ThreatModel, models
from ..trial import Averaged, Trial, oblivious
from .black_box import black_box


def standard(threats: Sequence[ThreatModel], classes: int) -> list[Trial]:
    """AutoAttack in its standard form; beside it Square, and PGD-20 on the classifier without its defence.

    Args:
        threats: one for each radius, in l∞ or l2.
        classes: how many logits the classifiers give; AutoAttack's list hangs on it.
    """
    trials = []
    for threat in models(threats):
        pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
        trials += [
            Trial("AutoAttack", AutoAttack(threat, classes), threat),
            *black_box([threat]),
            Trial("transfer from the classifier", pgd, threat, sees=oblivious),
        ]
    return trials


def randomised(threats: Sequence[ThreatModel], classes: int, samples: int = 20) -> list[Trial]:
    """For pipelines that answer at random: PGD through the expectation, and AutoAttack's `rand` form.

    Args:
        threats: one for each radius, in l∞ or l2.
        classes: how many logits the classifiers give.
        samples: forward passes that PGD averages at each step.
    """
    trials = []
    for threat in models(threats):
        pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
        trials += [
            Trial(f"PGD-20 eot {samples}", pgd, threat, sees=Averaged(samples)),
            Trial("AutoAttack rand", AutoAttack(threat, classes, version="rand"), threat),
        ]
    return trials
