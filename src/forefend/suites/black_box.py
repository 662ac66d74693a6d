"""What an attacker can do without the pipeline's gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..attacks.momentum import mi_fgsm
from ..attacks.pgd import PGD
from ..attacks.square import Square
from ..running import until_lost
from ..threat import ThreatModel
from ..trial import Surrogate, Trial, oblivious

QUERIES = 1000  # more than AutoAttack leaves to win in most cases; its own 5000 are spent inside `standard`


def black_box(threats: Sequence[ThreatModel]) -> list[Trial]:
    """Square with 1,000 queries, and PGD-20 on the classifier without its defence."""
    trials = []
    for threat in threats:
        trials += [
            Trial("Square", Square(threat, QUERIES), threat, run=until_lost),
            Trial("transfer from the classifier", PGD(threat, 20, 2.5 * threat.radius / 20), threat, sees=oblivious),
        ]
    return trials


def black_box_with(threats: Sequence[ThreatModel], surrogates: Mapping[str, nn.Module]) -> list[Trial]:
    """The same, and PGD-20 and MI-FGSM on other classifiers, in the hope that the examples transfer.

    Args:
        threats: one for each radius.
        surrogates: classifiers by name, trained apart from those attacked.
    """
    return black_box(threats) + [
        Trial(f"{name} from {surrogate}", attack, threat, sees=Surrogate(network, surrogate))
        for threat in threats
        for surrogate, network in surrogates.items()
        for name, attack in (
            ("PGD-20", PGD(threat, 20, 2.5 * threat.radius / 20)),
            ("MI-FGSM", mi_fgsm(threat, 20, threat.radius / 10)),
        )
    ]
