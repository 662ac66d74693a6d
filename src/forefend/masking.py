"""Masking: the gate. Is a robust accuracy real, or do the gradients that the attacks followed lead nowhere?

After Carlini et al., On evaluating adversarial robustness (1902.06705), Athalye et al. (1802.00420) and appendix A of
RTFE (2209.06931). Nothing here proves robustness: a number that fails is not to be trusted, and one that passes has
only not been caught.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from . import probes
from .attacks import Attack
from .attacks.apgd import APGD
from .attacks.autoattack import AutoAttack, flags
from .attacks.noise import Noise
from .attacks.pgd import PGD, fgsm
from .attacks.square import Square
from .checks import InputError
from .data import Images
from .defence import Defended
from .docket import device_of
from .draw import Draw
from .evaluation import Subject, verdicts
from .evidence import Evidence, Finding
from .findings import OF_ANY, OF_ATTACKED, OF_DIFFERENTIABLE
from .losses import dlr, margin
from .modes import frozen
from .running import Run, to_the_end, until_lost
from .summary import Verdict
from .threat import L2, Linf, ThreatModel
from .trial import Averaged, Suite, Surrogate, Trial, View, oblivious, through_bpda, white_box

Judge = Callable[[Images, Suite], list[Verdict]]


@dataclass(frozen=True)
class Budget:
    """What the gate may spend on an image; less catches less.

    Args:
        steps: of the longest attacks by gradients; the short one takes 20.
        restarts: of the longest.
        queries: of Square.
        samples: forward passes that an attacker of a randomised pipeline averages.
        reference: makes the attack that has the last word, from threat model, number of classes and AutoAttack's
            version, `standard` or `rand`.
    """

    steps: int = 100
    restarts: int = 3
    queries: int = 1000
    samples: int = 8
    reference: Callable[[ThreatModel, int, str], Attack] = AutoAttack  # type: ignore[assignment]


FULL: Final = Budget()


def check(
    subject: Subject,
    images: Images,
    threat: ThreatModel,
    *,
    recorded: Sequence[str] | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    budget: Budget = FULL,
) -> list[Finding]:
    """Try to catch masked gradients.

    Args:
        subject: whose robustness is in question.
        images: test images; a hundred or two will do.
        threat: the threat model of the number in question.
        recorded: identities of the trials that it comes from, as records hold them; None where there is no such number.
        surrogates: other classifiers, by name, that examples may transfer from.
        folder: where the verdicts are recorded, so that an interrupted check goes on.
        seed: of the attacks' random numbers.
        batch_size: images attacked at once.
        budget: what each image may cost.

    Raises:
        InputError: the threat model, the images or the subject cannot be used.
    """
    if not (isinstance(threat, Linf | L2) and isinstance(threat.radius, float) and threat.radius > 0):
        raise InputError(f"The gate cannot attack in {threat}: give Linf or L2 with one radius above 0.")
    classes = len(images.classes)
    budget.reference(threat, classes, "standard")  # what it refuses is refused before the others have run
    judge = partial(_verdicts, subject, folder=folder, seed=seed, batch_size=batch_size)
    batch = images.batch(torch.arange(min(len(images), batch_size)))
    evidence = replace(_probed(subject.network, batch, threat, classes, budget), n=len(images), recorded=recorded)
    if not evidence.facts["logits"]:  # evaluation refuses such a network, rightly
        return [look(evidence) for look in OF_ANY]
    attacker = _Attacker(threat, budget, bool(evidence.facts["random"]))
    suite = attacker.black_box(surrogates or {})
    suite += attacker.round_the_defence() if isinstance(subject.network, Defended) else []
    if not evidence.facts["flows"]:
        evidence = _with_verdicts(evidence, judge(images, suite), threat)
        return [look(evidence) for look in (*OF_ANY, *OF_ATTACKED)]
    suite = [*attacker.white_box(classes), *suite, *attacker.curve(images.shape)]
    evidence = _with_verdicts(evidence, judge(images, suite), threat)
    evidence = _with_reference(evidence, attacker.reference(classes), images, judge)
    return [look(evidence) for look in (*OF_ANY, *OF_ATTACKED, *OF_DIFFERENTIABLE)]


def _verdicts(
    subject: Subject, images: Images, suite: Suite, *, folder: Path | None, seed: int, batch_size: int
) -> list[Verdict]:
    return verdicts(subject, images, suite, folder=folder, seed=seed, batch_size=batch_size)


def _probed(
    network: nn.Module, batch: tuple[Tensor, Tensor, Tensor], threat: ThreatModel, classes: int, budget: Budget
) -> Evidence:
    """What the probes find on one batch."""
    network = frozen(network)
    x, y, index = (t.to(device_of(network)) for t in batch)
    random, flows = probes.is_random(network, x), probes.has_gradient(network, x[:2])
    facts = {
        "random": random,
        "flows": flows,
        "logits": probes.gives_logits(network, x),
        "optimises": probes.optimises_inside(network, x[:2]),
        "probed": len(x),
    }
    landscape = {}
    if flows:
        seen = probes.still(Averaged(budget.samples)(network)) if random else network
        facts["zero"] = int(probes.zero_gradients(seen, x, y).sum())
        landscape = probes.uphill(seen, x, y, threat, Draw(index, trial="landscape"), loss=margin)
    return Evidence(len(x), classes, threat.norm, {}, {}, None, facts, landscape)


def _with_verdicts(evidence: Evidence, found: Sequence[Verdict], threat: ThreatModel) -> Evidence:
    """The evidence, with what each trial broke at the radius in question, and one of them at every radius."""
    lost = {v.attack: v.lost for v in found if v.radius in (0.0, threat.radius)}
    return replace(evidence, lost=lost, curve={v.radius: v.lost for v in found if v.attack == "PGD-20"})


def _with_reference(evidence: Evidence, trial: Trial, images: Images, judge: Judge) -> Evidence:
    """The evidence, with what the reference breaks of the images that no white-box trial broke, and what it says."""
    white = evidence.white()
    rows = torch.tensor([row for row, i in enumerate(images.index.tolist()) if i not in white], dtype=torch.int64)
    if not len(rows):
        return replace(evidence, lost={**evidence.lost, trial.name: white})
    with flags() as said:
        found = judge(images.subset(rows), [trial])
    return replace(evidence, lost={**evidence.lost, trial.name: white | found[-1].lost}, flagged=tuple(said))


@dataclass(frozen=True)
class _Attacker:
    """Who attacks a subject, knowing whether it answers at random."""

    threat: ThreatModel
    budget: Budget
    random: bool

    @property
    def run(self) -> Run:
        """A single answer of a random pipeline proves nothing: there what the attack returns is judged."""
        return to_the_end if self.random else until_lost

    def sees(self, view: View = white_box) -> View:
        """A view, averaged where the pipeline is random."""
        return Averaged(self.budget.samples, view) if self.random else view

    def pgd(self, threat: ThreatModel, steps: int = 20) -> PGD:
        """PGD that can cross the ball two and a half times."""
        return PGD(threat, steps, 2.5 * threat.radius / steps)

    def white_box(self, classes: int) -> list[Trial]:
        """Attacks by gradients of what is deployed."""
        threat, steps, restarts = self.threat, self.budget.steps, self.budget.restarts
        sees, run, pgd = self.sees(), self.run, self.pgd(self.threat)
        apgd = APGD(threat, steps, loss=dlr if classes > 2 else margin)
        return [
            Trial("FGSM", fgsm(threat), threat, sees=sees),
            Trial("PGD-20", pgd, threat, sees=sees, run=run),
            Trial("PGD-20 margin", replace(pgd, loss=margin), threat, sees=sees, run=run),
            Trial("PGD long", self.pgd(threat, steps), threat, restarts, sees=sees, run=run),
            Trial("APGD", apgd, threat, restarts=2, sees=sees, run=run),
        ]

    def black_box(self, surrogates: Mapping[str, nn.Module]) -> list[Trial]:
        """Attacks that need no gradient of what is deployed, or take another classifier's."""
        threat, pgd = self.threat, self.pgd(self.threat)
        views = {f"transfer from {name}": Surrogate(network, name) for name, network in surrogates.items()}
        return [
            Trial("noise", Noise(threat), threat, restarts=10),
            Trial("Square", Square(threat, self.budget.queries), threat, sees=self.sees(), run=self.run),
            *(Trial(name, pgd, threat, sees=view) for name, view in views.items()),
        ]

    def round_the_defence(self) -> list[Trial]:
        """Attacks that do without the defence's gradient, one of them without the defence."""
        threat, pgd = self.threat, self.pgd(self.threat)
        bpda = Trial("BPDA", replace(pgd, loss=margin), threat, sees=self.sees(through_bpda), run=self.run)
        return [Trial("bypassed", pgd, threat, sees=self.sees(oblivious)), bpda]

    def curve(self, shape: tuple[int, int, int]) -> list[Trial]:
        """PGD at half the radius, at twice it, and at one where any image may become grey."""
        kind, grey = (Linf, 0.5) if isinstance(self.threat, Linf) else (L2, 0.5 * math.prod(shape) ** 0.5)
        radius = self.threat.radius
        radii = {radius / 2, min(2 * radius, grey), grey} - {radius}
        threats = [kind(each) for each in sorted(radii)]
        return [Trial("PGD-20", self.pgd(at), at, sees=self.sees(), run=self.run) for at in threats]

    def reference(self, classes: int) -> Trial:
        """The attack that has the last word."""
        attack = self.budget.reference(self.threat, classes, "rand" if self.random else "standard")
        averages = getattr(attack, "averages", False)
        return Trial("AutoAttack", attack, self.threat, sees=white_box if averages else self.sees())
