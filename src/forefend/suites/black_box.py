"""What an attacker can do without the pipeline's gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from ..attacks.momentum import mi_fgsm
from ..attacks.pgd import PGD
from ..attacks.square import Square
from ..running import until_lost
from ..threat import ThreatModel, models
from ..trial import Surrogate, Trial

QUERIES = 1000  # AutoAttack spends 5000 of its own on what its gradients left


def black_box(
    threats: Sequence[ThreatModel], surrogates: Mapping[str, nn.Module] = MappingProxyType({})
) -> list[Trial]:
    """Square with 1,000 queries; PGD-20 and MI-FGSM on other classifiers, in the hope that the examples transfer.

    Nothing of the subject is differentiated, so that it serves for pipelines that have no gradient.

    Args:
        threats: one for each radius.
        surrogates: classifiers by name, trained apart from those attacked.
    """
    threats = models(threats)
    square = [Trial("Square", Square(threat, QUERIES), threat, run=until_lost) for threat in threats]
    return square + [
        Trial(f"{name} from {surrogate}", attack, threat, sees=Surrogate(network, surrogate))
        for threat in threats
        for surrogate, network in surrogates.items()
        for name, attack in (
            ("PGD-20", PGD(threat, 20, 2.5 * threat.radius / 20)),
            ("MI-FGSM", mi_fgsm(threat, 20, threat.radius / 10)),
        )
    ]
