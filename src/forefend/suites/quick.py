"""Minutes, not hours: upper bounds on robustness."""

from __future__ import annotations

from collections.abc import Sequence

from ..attacks.pgd import PGD, fgsm
from ..losses import margin
from ..running import until_lost
from ..threat import ThreatModel, models
from ..trial import Trial


def quick(threat: ThreatModel) -> list[Trial]:
    """FGSM, and PGD-20 on two losses with restarts, white-box, step 2.5 ε / steps; every iterate is judged.

    An upper bound on robustness; what is reported to others needs `standard`.
    """
    (threat,) = models([threat])
    size = 2.5 * threat.radius / 20
    return [
        Trial("FGSM", fgsm(threat), threat),
        Trial("PGD-20", PGD(threat, 20, size), threat, restarts=2, run=until_lost),
        Trial("PGD-20 margin", PGD(threat, 20, size, loss=margin), threat, restarts=2, run=until_lost),
    ]


def curve(threats: Sequence[ThreatModel], steps: int = 20, restarts: int = 2) -> list[Trial]:
    """White-box PGD at several radii, every iterate judged: accuracy against radius."""
    return [
        Trial(f"PGD-{steps}", PGD(threat, steps, 2.5 * threat.radius / steps), threat, restarts, run=until_lost)
        for threat in models(threats)
    ]
