"""The five papers' own attacks, as they ran them: each judged on what the attack returns after its last step.

A number made by one of these is comparable with its paper's, and an upper bound; `standard` stands beside it. Step
sizes are shares of the radius, so that at a paper's radius they are the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..attacks.pgd import PGD
from ..threat import ThreatModel
from ..trial import Trial


def rtfe(threats: Sequence[ThreatModel]) -> list[Trial]:
    """RTFE's own attack, 20 steps, in the three readings of its step size.

    The paper states it three ways that exclude each other (2209.06931, section 4 and appendix A), so all are run.

    Args:
        threats: one for each radius; the paper's are 2, 4 and 8/255.
    """
    readings = {"1.25ε": 1.25, "1.25ε/20": 1.25 / 20, "1.25ε/100": 1.25 / 100}
    return [
        Trial(f"RTFE step {name}", PGD(threat, 20, share * threat.radius), threat)
        for threat in threats
        for name, share in readings.items()
    ]


def rtfe_strong_weak(threats: Sequence[ThreatModel]) -> list[Trial]:
    """RTFE's pair of appendix A: one step of 1.25 ε, and 100 steps of 1.25 ε / 100 with five restarts."""
    weak = [Trial("RTFE weak", PGD(threat, 1, 1.25 * threat.radius), threat) for threat in threats]
    strong = [Trial("RTFE strong", PGD(threat, 100, 0.0125 * threat.radius), threat, restarts=5) for threat in threats]
    return weak + strong


def robustifier(threats: Sequence[ThreatModel]) -> list[Trial]:
    """The robustifier's 100 steps: 5 restarts of 20 at each of three step sizes; its figure is the worst of them.

    The paper's l∞ steps are 0.008, 0.004 and 0.0015 at 0.031 (section 5.1). In l2, where such steps cannot cross the
    ball, they are 2.5 ε / 20 and its half and fifth.
    """
    trials = []
    for threat in threats:
        shares = (0.008 / 0.031, 0.004 / 0.031, 0.0015 / 0.031) if threat.norm == "Linf" else (0.125, 0.0625, 0.025)
        trials += [
            Trial(f"robustifier step {name}", PGD(threat, 20, share * threat.radius), threat, restarts=5)
            for name, share in zip(("large", "middle", "small"), shares, strict=True)
        ]
    return trials
