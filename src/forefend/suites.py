"""Suites: named lists of trials, each an evaluation protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .attacks import Attack
from .attacks.pgd import PGD, fgsm
from .defence import Defended
from .losses import margin
from .threat import ThreatModel

View = Callable[[nn.Module], Callable[[Tensor], Any]]


def white_box(subject: nn.Module) -> nn.Module:
    """The attacker sees everything: the whole pipeline."""
    return subject


def oblivious(subject: nn.Module) -> nn.Module:
    """The attacker knows the classifier and does not know that it is defended."""
    return subject.classifier if isinstance(subject, Defended) else subject


@dataclass(frozen=True, repr=False)
class Trial:
    """One line of a protocol: an attack, how often it restarts, and what it sees. The verdict is the subject's own.

    Args:
        name: what tables call it; trials of one name at several radii make a curve.
        attack: made for `threat`.
        threat: what the adversarial images must obey.
        restarts: attempts with different starts; an image is lost if one breaks it.
        sees: from the subject to the `f` that the attack is handed.
    """

    name: str
    attack: Attack
    threat: ThreatModel
    restarts: int = 1
    sees: View = white_box

    def __str__(self) -> str:
        """The identity written into records: equal in every process, different for different settings."""
        times = f" x{self.restarts}" if self.restarts > 1 else ""
        return f"{self.attack}{times} in {self.threat} [{self.sees.__name__}]"

    def gradients(self) -> int:
        """Gradient evaluations an image may cost at most."""
        return self.restarts * int(getattr(self.attack, "steps", 1))


Suite = Sequence[Trial]


def quick(threat: ThreatModel) -> list[Trial]:
    """Minutes, not hours: FGSM, and PGD-20 on two losses with restarts, white-box, step 2.5 ε / steps.

    An upper bound on robustness; what is reported to others needs `standard`.
    """
    size = 2.5 * threat.radius / 20
    return [
        Trial("FGSM", fgsm(threat), threat),
        Trial("PGD-20", PGD(threat, 20, size), threat, restarts=2),
        Trial("PGD-20 margin", PGD(threat, 20, size, loss=margin), threat, restarts=2),
    ]


def curve(threats: Sequence[ThreatModel], steps: int = 20, restarts: int = 2) -> list[Trial]:
    """White-box PGD at several radii: accuracy against radius."""
    return [
        Trial(f"PGD-{steps}", PGD(threat, steps, 2.5 * threat.radius / steps), threat, restarts) for threat in threats
    ]


def rtfe(threats: Sequence[ThreatModel]) -> list[Trial]:
    """The RTFE paper's own attack, 20 steps, in the three readings of its step size.

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
