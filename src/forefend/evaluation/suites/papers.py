"""The papers' attacks as published, each evaluated on the image it returns at its end.

Their results are comparable with the papers' and are upper bounds on robustness; report `standard`
beside them. Step sizes are shares of the radius, so that at a paper's radius they are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.bug_examples import bugs, likeliest_wrong_class
from forefend.attacks.carlini_wagner import carlini_wagner, cw_search_c100, cw_single_c100
from forefend.attacks.feature_space import (
    AnotherClass,
    WithTarget,
    label_and_image,
    latent,
    latent_attack,
    reconstruction,
    reconstruction_attack,
)
from forefend.attacks.momentum import ti_bim
from forefend.attacks.pgd import PGD, fgsm, from_x
from forefend.attacks.wasserstein import ProjectedWasserstein
from forefend.data import ImageDataset
from forefend.evaluation.access import Access, Surrogate, Together, View, through_bpda, white_box
from forefend.evaluation.suites.general import Threats
from forefend.evaluation.trial import Trial
from forefend.losses import dlr, margin
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2
from forefend.threat_models.parsing import as_threat_models
from forefend.threat_models.wasserstein import Wasserstein


def rtfe(threats: Threats) -> list[Trial]:
    """Return RTFE's own attack, 20 steps, with each of its three step sizes.

    The paper states three that exclude each other (2209.06931, section 4 and appendix A).

    Args:
        threats: threat models or their names; the paper's radii are 2, 4 and 8/255.
    """
    readings = {"1.25ε": 1.25, "1.25ε/20": 1.25 / 20, "1.25ε/100": 1.25 / 100}
    return [
        Trial(f"RTFE step {name}", PGD(threat, 20, share * threat.radius), threat)
        for threat in as_threat_models(threats)
        for name, share in readings.items()
    ]


def rtfe_strong_weak(threats: Threats) -> list[Trial]:
    """Return RTFE's attacks of appendix A: 1 step of 1.25 ε, and 5 restarts of 100 steps."""
    threats = as_threat_models(threats)
    weak = [Trial("RTFE weak", PGD(threat, 1, 1.25 * threat.radius), threat) for threat in threats]
    strong = [Trial("RTFE strong", PGD(threat, 100, 0.0125 * threat.radius), threat, restarts=5) for threat in threats]
    return weak + strong


def robustifier(threats: Threats) -> list[Trial]:
    """Return the robustifier's attack: 5 restarts of 20 steps at each of three step sizes.

    The paper's l∞ steps are 0.008, 0.004 and 0.0015 at 0.031 (section 5.1). In l2, where such steps
    cannot cross the ball, they are 2.5 ε / 20 and its half and fifth.
    """
    trials = []
    for threat in as_threat_models(threats):
        shares = (0.008 / 0.031, 0.004 / 0.031, 0.0015 / 0.031) if threat.norm == "Linf" else (0.125, 0.0625, 0.025)
        trials += [
            Trial(f"robustifier step {name}", PGD(threat, 20, share * threat.radius), threat, restarts=5)
            for name, share in zip(("large", "middle", "small"), shares, strict=True)
        ]
    return trials


def jatp(threats: Threats, classes: int = 10) -> list[Trial]:
    """Return JATP's attacks: PGD-40, PGD-40 on DLR, AutoAttack, Wasserstein and TI-BIM.

    Args:
        threats: l∞ threat models or their names; the paper's radius is 8/255, in Wasserstein too.
        classes: the number of logits.

    Source: JATP (2106.05453), section 4.1; its FWA is the projected form in its first author's
        code.
    """
    trials = []
    for threat in as_threat_models(threats):
        steps = 0.01 / (8 / 255) * threat.radius, 0.007 / (8 / 255) * threat.radius
        moved = Wasserstein(threat.radius)
        trials += [
            Trial("PGD-40", PGD(threat, 40, steps[0]), threat),
            Trial("DLR-40", PGD(threat, 40, steps[1], loss=dlr if classes > 2 else margin), threat),
            Trial("AutoAttack", AutoAttack(threat, classes), threat),
            Trial("FWA-20", ProjectedWasserstein(moved, 20, 0.01), moved),
            Trial("TI-BIM", ti_bim(threat, 40, steps[1]), threat),
        ]
    return trials


def bug_examples(threats: Threats, ensemble: Mapping[str, nn.Module]) -> list[Trial]:
    """Return Nakkiran's attack as RTFE states it: mislead the model while an ensemble stays right.

    Args:
        threats: threat models or their names.
        ensemble: the other classifiers, by name; they too are behind the defense of the model.

    Source: RTFE (2209.06931), Eq. 7; the target is the likeliest wrong class.
    """
    return [
        Trial("bugs", WithTarget(bugs(threat), likeliest_wrong_class), threat, access=Access(Together(ensemble)))
        for threat in as_threat_models(threats)
    ]


def aaa(threats: Threats) -> list[Trial]:
    """Return AAA's attacks: PGD with many restarts, and Carlini and Wagner's in l2.

    From a radius of 0.1 on, PGD takes 100 steps of 0.01 from 50 starts, as on MNIST and
    Fashion-MNIST; below, 20 steps of a quarter of the radius from 10 starts, as on CIFAR-10. The
    paper states c = 100 for its Carlini–Wagner attack, and not whether c is searched: `CW single
    c100` and `CW search c100` are the two readings, and CW has the usual settings.

    Source: AAA (1909.05921), sections 4 and 5.
    """
    pgd = []
    for threat in as_threat_models(threats):
        steps, size, restarts = _aaa_steps(threat)
        pgd.append(Trial(f"PGD-{steps} x{restarts}", PGD(threat, steps, size), threat, restarts=restarts))
    return [*pgd, *aaa_carlini_wagner()]


def _aaa_steps(threat: ThreatModel) -> tuple[int, float, int]:
    """Return steps, step size and number of starts of AAA's PGD."""
    return (100, 0.01, 50) if threat.radius >= 0.1 else (20, threat.radius / 4, 10)


def aaa_carlini_wagner() -> list[Trial]:
    """Return the readings of AAA's Carlini–Wagner attack within its l2 distance of 3, and the usual attack."""
    near = L2(3)
    readings = {"CW single c100": cw_single_c100, "CW search c100": cw_search_c100, "CW": carlini_wagner}
    return [Trial(name, attack(near), near) for name, attack in readings.items()]


def aaa_adaptive(threats: Threats, pool: ImageDataset) -> list[Trial]:
    """Return AAA's attacks on the defense: on label and reconstruction, on the latent, and BPDA.

    The latent of an autoencoder is the output of its encoder, that of a U-Net its lowest features.

    Args:
        threats: threat models or their names.
        pool: images whose latents are targets; their labels must differ.

    Source: AAA (1909.05921), section 6; steps and starts as in its PGD.
    """
    x, y, _ = pool.batch(torch.arange(len(pool)))
    trials = []
    for threat in as_threat_models(threats):
        steps, size, restarts = _aaa_steps(threat)
        spoil = WithTarget(reconstruction_attack(threat, steps, size), label_and_image)
        swap = WithTarget(latent_attack(threat, steps, size), AnotherClass(x, y))
        trials += [
            Trial("PGD with reconstruction", spoil, threat, restarts, Access(reconstruction)),
            Trial("latent", swap, threat, restarts, Access(latent)),
            Trial("BPDA", PGD(threat, steps, size), threat, restarts, Access(through_bpda)),
        ]
    return trials


def transfer(threats: Threats, surrogates: Mapping[str, nn.Module]) -> list[Trial]:
    """Return FGSM and PGD-7 without a random start, white-box and from surrogates.

    Args:
        threats: threat models or their names; the paper's radius is 0.0625 on [-1, 1], 0.03125
            here.
        surrogates: classifiers by name; the paper's is a DenseNet trained naturally.

    Source: 1905.02675, section 3, and its authors' code: the same attack in training and test.
    """
    views: dict[str, View] = {"white-box": white_box, **{name: Surrogate(n, name) for name, n in surrogates.items()}}
    return [
        Trial(f"{attack_name} {name}", attack, threat, access=Access(view))
        for threat in as_threat_models(threats)
        for name, view in views.items()
        for attack_name, attack in (
            ("FGSM", fgsm(threat)),
            ("PGD-7", PGD(threat, 7, threat.radius / 4, start=from_x)),
        )
    ]
