"""The attacks of the five papers by name and plain settings, as trials of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.carlini_wagner import carlini_wagner, cw_search_c100, cw_single_c100
from forefend.attacks.momentum import ti_bim
from forefend.attacks.pgd import PGD, fgsm, from_x
from forefend.attacks.wasserstein import ProjectedWasserstein
from forefend.checks import choose
from forefend.data import ImageDataset, from_tensors
from forefend.evaluation.access import Access, Surrogate, Together, through_bpda
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.suites.fast import fast
from forefend.evaluation.suites.papers import aaa_adaptive, bug_examples
from forefend.evaluation.trial import Trial
from forefend.losses import Mean, ce, dlr
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2
from forefend.threat_models.parsing import as_threat_model
from forefend.threat_models.wasserstein import Wasserstein


@dataclass(frozen=True)
class Given:
    """What a trial is made from besides its settings.

    Args:
        threat: the attacker's threat model.
        others: further classifiers, by name: surrogates, or an ensemble.
        pool: images of several classes, for attacks that imitate another image.
        classes: the number of logits.
    """

    threat: ThreatModel
    others: Mapping[str, nn.Module] = field(default_factory=dict)
    pool: ImageDataset | None = None
    classes: int = 10

    def surrogate(self) -> Access:
        """The access of an attacker who knows only the other classifier; white-box without one."""
        found = [Surrogate(network, name) for name, network in self.others.items()]
        return Access(found[0]) if found else Access()


def pgd(
    given: Given,
    *,
    steps: int,
    step: float,
    restarts: int = 1,
    until_lost: bool = False,
    random: bool = True,
    eot: int = 0,
) -> Trial:
    """PGD; its step is a share of the radius, until_lost evaluates every iterate, and eot averages random outputs."""
    start: dict[str, Any] = {} if random else {"start": from_x}
    how: dict[str, Any] = {"run": stop_at_success} if until_lost else {}
    attack = PGD(given.threat, steps, step * given.threat.radius, **start)
    name = f"PGD-{steps}{f' x{restarts}' if restarts > 1 else ''}"
    access = replace(given.surrogate(), eot_samples=eot)
    return Trial(name, attack, given.threat, restarts, access=access, **how)


def pgd_ensemble(given: Given, *, steps: int, step: float) -> Trial:
    """PGD on the mean cross-entropy of the model and of the other classifiers behind its defense (RTFE, Eq. 8)."""
    attack = PGD(given.threat, steps, step * given.threat.radius, loss=Mean(ce))
    return Trial("PGD, ensemble", attack, given.threat, access=Access(Together(given.others)))


def single_step(given: Given) -> Trial:
    """FGSM, from a surrogate where there is one."""
    return Trial("FGSM", fgsm(given.threat), given.threat, access=given.surrogate())


def bpda(given: Given, *, steps: int, step: float, restarts: int = 1) -> Trial:
    """PGD with the identity as the backward pass of the defense."""
    attack = PGD(given.threat, steps, step * given.threat.radius)
    return Trial("BPDA", attack, given.threat, restarts, Access(through_bpda))


def pgd_dlr(given: Given, *, steps: int, step: float) -> Trial:
    """PGD on the difference-of-logits-ratio loss."""
    return Trial("DLR", PGD(given.threat, steps, step * given.threat.radius, loss=dlr), given.threat)


def autoattack(given: Given) -> Trial:
    """AutoAttack's standard form."""
    return Trial("AutoAttack", AutoAttack(given.threat, given.classes), given.threat)


def near_autoattack(given: Given) -> Trial:
    """The suite `fast`: no paper's attack, and a verdict near AutoAttack's."""
    return fast(given.threat, given.classes)[0]


def moved_mass(given: Given, *, steps: int, step: float) -> Trial:
    """The projected Wasserstein attack at the radius of the threat model."""
    moved = Wasserstein(given.threat.radius)
    return Trial("FWA", ProjectedWasserstein(moved, steps, step), moved)


def translated(given: Given, *, steps: int, step: float) -> Trial:
    """TI-BIM."""
    return Trial("TI-BIM", ti_bim(given.threat, steps, step * given.threat.radius), given.threat)


def cw(given: Given, *, reading: str, distance: float = 3.0) -> Trial:
    """Carlini and Wagner's l2 attack within a distance, in one of three readings."""
    readings = {"single c100": cw_single_c100, "search c100": cw_search_c100, "usual": carlini_wagner}
    near = L2(distance)
    return Trial(f"CW {reading}", choose(reading, readings, "reading")(near), near)


def adaptive(given: Given, *, name: str, restarts: int = 1) -> Trial:
    """One of AAA's attacks on the autoencoder: `PGD with reconstruction` or `latent`."""
    pool = given.pool or _two_images()
    trials = {trial.name: trial for trial in aaa_adaptive(given.threat, pool)}
    found = choose(name, trials, "adaptive attack")
    return Trial(name, found.attack, found.threat, restarts, found.access)


def bugs(given: Given) -> Trial:
    """Nakkiran's attack: mislead the model while an ensemble stays right."""
    return bug_examples(given.threat, given.others)[0]


ATTACKS: dict[str, Callable[..., Trial]] = {
    "adaptive": adaptive,
    "autoattack": autoattack,
    "bpda": bpda,
    "bugs": bugs,
    "cw": cw,
    "dlr": pgd_dlr,
    "fast": near_autoattack,
    "fgsm": single_step,
    "fwa": moved_mass,
    "pgd": pgd,
    "pgd-ensemble": pgd_ensemble,
    "ti-bim": translated,
}


@dataclass(frozen=True)
class AttackSpec:
    """An attack as plain values.

    Args:
        name: a key of `ATTACKS`.
        threat: the threat model, such as `Linf:8/255`.
        settings: the arguments of the function.
    """

    name: str
    threat: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        """The values as JSON."""
        return {"attack": self.name, "threat": self.threat, "settings": dict(self.settings)}

    def trial(self, others: Mapping[str, nn.Module], pool: ImageDataset | None = None, classes: int = 10) -> Trial:
        """Make the trial.

        Args:
            others: further classifiers, by name.
            pool: images of several classes.
            classes: the number of logits.
        """
        given = Given(as_threat_model(self.threat), others, pool, classes)
        return choose(self.name, ATTACKS, "attack")(given, **self.settings)


def _two_images() -> ImageDataset:
    """Stand-ins for images, to compute the cost of an attack alone."""
    return from_tensors("stand-in", torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]))
