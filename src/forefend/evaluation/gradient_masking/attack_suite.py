"""The attacks that the gradient-masking checks run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from forefend.attacks.auto_pgd import APGD
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.base import Attack
from forefend.attacks.noise import Noise
from forefend.attacks.pgd import PGD, fgsm
from forefend.attacks.square import Square
from forefend.evaluation.access import Access, Surrogate, View, oblivious, through_bpda, white_box
from forefend.evaluation.attack_runner import Run, run_all_steps, stop_at_success
from forefend.evaluation.suites.fast import fast
from forefend.evaluation.trial import Trial
from forefend.losses import dlr, margin
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf


@dataclass(frozen=True)
class CheckBudget:
    """How much computation the attacks may spend on an image; a smaller budget catches less.

    Args:
        steps: steps of the longest gradient attacks; the short ones take 20.
        restarts: restarts of the longest attack; of every attack where the output is random.
        queries: queries of Square.
        samples: forward passes that attacks average where the output is random.
        reference: builds the attack that runs last, from threat model, number of classes and AutoAttack's version,
            `standard` or `rand`. None for the suite `fast`, and for AutoAttack's `rand` where the output is random.
    """

    steps: int = 100
    restarts: int = 3
    queries: int = 1000
    samples: int = 8
    reference: Callable[[ThreatModel, int, str], Attack] | None = None


@dataclass(frozen=True)
class AttackSuite:
    """Builds the trials of the checks.

    Where the output is random, every attack gets the same number of restarts, and only its last
    iterate counts: each further random output may be wrong by chance.

    Args:
        threat: threat model of all attacks.
        budget: computation of the attacks.
        random: whether the model's output is random.
    """

    threat: ThreatModel
    budget: CheckBudget
    random: bool

    def white_box_trials(self, classes: int) -> list[Trial]:
        """Return attacks that follow the gradient of the whole model."""
        threat, steps, pgd = self.threat, self.budget.steps, self._pgd(self.threat)
        return [
            self._trial("FGSM", fgsm(threat), run=run_all_steps),
            self._trial("PGD-20", pgd),
            self._trial("PGD-20 margin", replace(pgd, loss=margin)),
            self._trial("PGD long", self._pgd(threat, steps), self.budget.restarts),
            self._trial("APGD", APGD(threat, steps, loss=dlr if classes > 2 else margin), 2),
        ]

    def black_box_trials(self, surrogates: Mapping[str, nn.Module]) -> list[Trial]:
        """Return attacks without gradients of the model, and transfer attacks."""
        threat, pgd = self.threat, self._pgd(self.threat)
        views = {f"transfer from {name}": Surrogate(network, name) for name, network in surrogates.items()}
        return [
            self._trial("noise", Noise(threat), 10, access=Access(), run=run_all_steps),
            self._trial("Square", Square(threat, self.budget.queries)),
            *(self._trial(name, pgd, access=Access(view), run=run_all_steps) for name, view in views.items()),
        ]

    def bypass_trials(self) -> list[Trial]:
        """Return attacks that ignore the gradient of the defense, or the whole defense."""
        pgd = self._pgd(self.threat)
        return [
            self._trial("bypassed", pgd, access=self._averaged(oblivious), run=run_all_steps),
            self._trial("BPDA", replace(pgd, loss=margin), access=self._averaged(through_bpda)),
        ]

    def curve_trials(self, shape: tuple[int, int, int]) -> list[Trial]:
        """Return PGD at half and twice the radius, and at one that reaches gray from any image."""
        kind, gray = (Linf, 0.5) if isinstance(self.threat, Linf) else (L2, 0.5 * math.prod(shape) ** 0.5)
        radius = self.threat.radius
        radii = {radius / 2, min(2 * radius, gray), gray} - {radius}
        return [self._trial("PGD-20", self._pgd(kind(each))) for each in sorted(radii)]

    def reference_trial(self, classes: int) -> Trial:
        """Return the attack that runs last: `fast`, or AutoAttack's `rand` for a random output, by default."""
        if self.budget.reference is None and not self.random:
            return fast(self.threat, classes)[0]
        build: Callable[..., Attack] = self.budget.reference or AutoAttack
        attack = build(self.threat, classes, "rand" if self.random else "standard")
        access = Access() if getattr(attack, "averages", False) else self._averaged()
        return self._trial("AutoAttack", attack, access=access, run=run_all_steps)

    def _averaged(self, view: View = white_box) -> Access:
        return Access(view, self.budget.samples if self.random else 0)

    def _trial(
        self, name: str, attack: Attack, restarts: int = 1, *, access: Access | None = None, run: Run = stop_at_success
    ) -> Trial:
        threat: ThreatModel = getattr(attack, "threat", self.threat)  # the curve attacks at radii of its own
        access = self._averaged() if access is None else access
        if self.random:
            return Trial(name, attack, threat, self.budget.restarts, access=access, run=run_all_steps)
        return Trial(name, attack, threat, restarts, access=access, run=run)

    def _pgd(self, threat: ThreatModel, steps: int = 20) -> PGD:
        return PGD(threat, steps, 2.5 * threat.radius / steps)
