"""Minutes, not hours: upper bounds on robustness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import nn

from forefend.attacks.auto_pgd import APGD
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.momentum import mi_fgsm
from forefend.attacks.pgd import PGD, fgsm
from forefend.attacks.square import Square
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.fast_trials import Swift
from forefend.evaluation.trial import Averaged, Cascade, Surrogate, Trial, oblivious
from forefend.losses import dlr, margin
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_models


def quick(threat: ThreatModel) -> list[Trial]:
    """FGSM, and PGD-20 on two losses with restarts, white-box, step 2.5 ε / steps; every iterate is judged.

    An upper bound on robustness; what is reported to others needs `standard`.
    """
    (threat,) = as_threat_models([threat])
    size = 2.5 * threat.radius / 20
    return [
        Trial("FGSM", fgsm(threat), threat),
        Trial("PGD-20", PGD(threat, 20, size), threat, restarts=2, run=stop_at_success),
        Trial("PGD-20 margin", PGD(threat, 20, size, loss=margin), threat, restarts=2, run=stop_at_success),
    ]


def curve(threats: Sequence[ThreatModel], steps: int = 20, restarts: int = 2) -> list[Trial]:
    """White-box PGD at several radii, every iterate judged: accuracy against radius."""
    return [
        Trial(f"PGD-{steps}", PGD(threat, steps, 2.5 * threat.radius / steps), threat, restarts, run=stop_at_success)
        for threat in as_threat_models(threats)
    ]


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
    threats = as_threat_models(threats)
    square = [Trial("Square", Square(threat, QUERIES), threat, run=stop_at_success) for threat in threats]
    return square + [
        Trial(f"{name} from {surrogate}", attack, threat, sees=Surrogate(network, surrogate))
        for threat in threats
        for surrogate, network in surrogates.items()
        for name, attack in (
            ("PGD-20", PGD(threat, 20, 2.5 * threat.radius / 20)),
            ("MI-FGSM", mi_fgsm(threat, 20, threat.radius / 10)),
        )
    ]


def standard(threats: Sequence[ThreatModel], classes: int) -> list[Trial]:
    """AutoAttack in its standard form; beside it Square, and PGD-20 on the classifier without its defense.

    Args:
        threats: one for each radius, in l∞ or l2.
        classes: how many logits the classifiers give; AutoAttack's list hangs on it.
    """
    trials = []
    for threat in as_threat_models(threats):
        pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
        trials += [
            Trial("AutoAttack", AutoAttack(threat, classes), threat),
            *black_box([threat]),
            Trial("transfer from the classifier", pgd, threat, sees=oblivious),
        ]
    return trials


def randomized(threats: Sequence[ThreatModel], classes: int, samples: int = 20) -> list[Trial]:
    """For pipelines that answer at random: PGD through the expectation, and AutoAttack's `rand` form.

    Args:
        threats: one for each radius, in l∞ or l2.
        classes: how many logits the classifiers give.
        samples: forward passes that PGD averages at each step.
    """
    trials = []
    for threat in as_threat_models(threats):
        pgd = PGD(threat, 20, 2.5 * threat.radius / 20)
        trials += [
            Trial(f"PGD-20 eot {samples}", pgd, threat, sees=Averaged(samples)),
            Trial("AutoAttack rand", AutoAttack(threat, classes, version="rand"), threat),
        ]
    return trials


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
    for threat in as_threat_models(threats):
        apgd = APGD(threat, 20, loss=dlr if classes > 2 else margin)
        stages = (
            Trial("PGD-10", PGD(threat, 10, threat.radius / 4), threat, sees=Swift(), run=stop_at_success),
            Trial("APGD-20", apgd, threat, sees=Swift(), run=stop_at_success),
        )
        trials.append(Trial("cascade", AutoAttack(threat, classes), threat, run=Cascade(stages)))
    return trials
