"""General suites: quick and standard attacks, black-box attacks, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.decision_based import Boundary, HopSkipJump
from forefend.attacks.momentum import mi_fgsm
from forefend.attacks.pgd import PGD, fgsm
from forefend.attacks.square import Square
from forefend.evaluation.access import Access, Surrogate, oblivious, queries
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.trial import Trial
from forefend.losses import margin
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_model, as_threat_models

Threats = str | ThreatModel | Sequence[str | ThreatModel]


def quick(threat: str | ThreatModel) -> list[Trial]:
    """Return FGSM, and PGD-20 on two losses with two restarts, white-box.

    The accuracy is an upper bound on robustness; report results of `standard`.
    """
    threat = as_threat_model(threat)
    size = 2.5 * threat.radius / 20
    return [
        Trial("FGSM", fgsm(threat), threat),
        Trial("PGD-20", PGD(threat, 20, size), threat, restarts=2, run=stop_at_success),
        Trial("PGD-20 margin", PGD(threat, 20, size, loss=margin), threat, restarts=2, run=stop_at_success),
    ]


def curve(threats: Threats, steps: int = 20, restarts: int = 2, step_size: float | None = None) -> list[Trial]:
    """Return white-box PGD at several radii, every iterate evaluated: accuracy against radius.

    Args:
        threats: threat models or their names.
        steps: gradient steps of each restart.
        restarts: random starts of each image.
        step_size: length of a step; None means 2.5 radii / steps.
    """
    return [
        Trial(
            f"PGD-{steps}",
            PGD(threat, steps, step_size or 2.5 * threat.radius / max(steps, 1)),
            threat,
            restarts,
            run=stop_at_success,
        )
        for threat in as_threat_models(threats)
    ]


QUERIES = 1000  # AutoAttack uses 5000 of its own


def black_box(
    threats: Threats, surrogates: Mapping[str, nn.Module] = MappingProxyType({}), scores: bool = True
) -> list[Trial]:
    """Return Square with 1,000 queries, HopSkipJump and Boundary with 2,000 each, and transfer attacks from surrogates.

    No trial needs a gradient of the evaluated model. The queries for an image end at its first success.

    Args:
        threats: threat models or their names, in l∞ or l2.
        surrogates: other classifiers, by name.
        scores: whether the models give more than labels; without scores, Square has nothing to climb and is left out.
    """
    threats = as_threat_models(threats)
    square = [_square(threat) for threat in threats if scores]
    by_labels = [
        Trial(name, attack(threat), threat, access=Access(queries))
        for threat in threats
        for name, attack in (("HopSkipJump", HopSkipJump), ("Boundary", Boundary))
    ]
    return [*square, *by_labels] + [
        Trial(f"{name} from {surrogate}", attack, threat, access=Access(Surrogate(network, surrogate)))
        for threat in threats
        for surrogate, network in surrogates.items()
        for name, attack in (
            ("PGD-20", PGD(threat, 20, 2.5 * threat.radius / 20)),
            ("MI-FGSM", mi_fgsm(threat, 20, threat.radius / 10)),
        )
    ]


def _square(threat: ThreatModel) -> Trial:
    return Trial("Square", Square(threat, QUERIES), threat, run=stop_at_success)


def standard(threats: Threats, classes: int = 10) -> list[Trial]:
    """Return AutoAttack's standard form, Square, and PGD-20 on the undefended classifier."""
    trials = []
    for threat in as_threat_models(threats):
        pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
        trials += [
            Trial("AutoAttack", AutoAttack(threat, classes), threat),
            _square(threat),
            Trial("transfer from the classifier", pgd, threat, access=Access(oblivious)),
        ]
    return trials


def randomized(threats: Threats, classes: int = 10, samples: int = 20) -> list[Trial]:
    """Return PGD on averaged outputs and AutoAttack's `rand` form, for models with random outputs.

    Args:
        threats: threat models or their names, in l∞ or l2.
        classes: the number of logits.
        samples: forward passes that PGD averages in each step.
    """
    trials = []
    for threat in as_threat_models(threats):
        pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
        trials += [
            Trial(f"PGD-20 eot {samples}", pgd, threat, access=Access(eot_samples=samples)),
            Trial("AutoAttack rand", AutoAttack(threat, classes, version="rand"), threat),
        ]
    return trials
