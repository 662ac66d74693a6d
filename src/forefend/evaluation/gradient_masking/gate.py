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
from typing import Any, Final

import torch
from torch import Tensor, nn

from forefend.attacks.auto_pgd import APGD
from forefend.attacks.autoattack import AutoAttack, flags
from forefend.attacks.base import Attack
from forefend.attacks.noise import Noise
from forefend.attacks.pgd import PGD, fgsm
from forefend.attacks.square import Square
from forefend.checks import InputError, check_classifier, check_images, check_labels
from forefend.data import ImageDataset
from forefend.evaluation.attack_runner import Run, run_all_steps, stop_at_success
from forefend.evaluation.evaluate import verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking import diagnostics
from forefend.evaluation.gradient_masking.checks import OF_ANY, OF_ATTACKED, OF_DIFFERENTIABLE
from forefend.evaluation.gradient_masking.evidence import CheckResult, Evidence, Number
from forefend.evaluation.results import Verdict
from forefend.evaluation.trial import Averaged, Suite, Surrogate, Trial, View, oblivious, through_bpda, white_box
from forefend.losses import dlr, margin
from forefend.models.defense import Defended
from forefend.models.freezing import device_of, frozen
from forefend.runtime.distributed import process_group
from forefend.runtime.rng import torch_seed
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

Judge = Callable[[ImageDataset, Suite], list[Verdict]]


@dataclass(frozen=True)
class CheckBudget:
    """What the gate may spend on an image; less catches less.

    Args:
        steps: of the longest attacks by gradients; the short one takes 20.
        restarts: of the longest; of every attack where answers are random.
        queries: of Square.
        samples: forward passes that an attacker of a randomized pipeline averages.
        reference: makes the attack that has the last word, from threat model, number of classes and AutoAttack's
            version, `standard` or `rand`.
    """

    steps: int = 100
    restarts: int = 3
    queries: int = 1000
    samples: int = 8
    reference: Callable[[ThreatModel, int, str], Attack] = AutoAttack  # type: ignore[assignment]


FULL: Final = CheckBudget()


def check(
    model: EvaluatedModel,
    images: ImageDataset,
    threat: ThreatModel,
    *,
    number: Number | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    budget: CheckBudget = FULL,
    tell: Callable[[Suite, int], None] | None = None,
) -> list[CheckResult]:
    """Try to catch masked gradients.

    Args:
        model: whose robustness is in question.
        images: test images; a hundred or two will do.
        threat: the threat model of the number in question.
        number: the number in question, as records hold it; None where there is none.
        surrogates: other classifiers, by name, that examples may transfer from.
        folder: where the verdicts are recorded, so that an interrupted check goes on.
        seed: of the attacks' random numbers.
        batch_size: images attacked at once.
        budget: what each image may cost.
        tell: called before the work with all trials that may be run and how many images go at once.

    Raises:
        InputError: the threat model, the images or the subject cannot be used.
    """
    refuse_unfit(model, images, threat, batch_size=batch_size, budget=budget)
    classes = len(images.classes)
    with torch_seed(0):
        batch = images.batch(torch.arange(min(len(images), batch_size)))
        facts, landscape = diagnostics.probe(model.network, batch, threat, budget.samples)
    seen = frozenset(images.index.tolist())
    evidence = Evidence(seen, classes, threat.norm, {}, {}, number, facts, landscape)
    if not evidence.facts["logits"]:  # evaluation refuses such a network, rightly
        return [look(evidence) for look in OF_ANY]
    # A pipeline may draw once for all images of a batch: small batches keep one draw from deciding everything.
    size = min(batch_size, 8) if evidence.facts["random"] else batch_size
    judge = partial(verdicts, model, folder=folder, seed=seed, batch_size=size)
    attacker = _Attacker(threat, budget, bool(evidence.facts["random"]))
    suite = attacker.black_box(surrogates or {})
    suite += attacker.round_the_defense() if isinstance(model.network, Defended) else []
    if not evidence.facts["flows"]:
        if tell:
            tell(suite, size)
        evidence = _with_verdicts(evidence, judge(images, suite), threat)
        return [look(evidence) for look in (*OF_ANY, *OF_ATTACKED)]
    suite = [*attacker.white_box(classes), *suite, *attacker.curve(images.shape)]
    reference = attacker.reference(classes)
    if tell:
        tell([*suite, reference], size)
    evidence = _with_verdicts(evidence, judge(images, suite), threat)
    evidence = _with_reference(evidence, reference, images, judge)
    return [look(evidence) for look in (*OF_ANY, *OF_ATTACKED, *OF_DIFFERENTIABLE)]


def refuse_unfit(
    model: EvaluatedModel,
    images: ImageDataset,
    threat: ThreatModel,
    *,
    batch_size: int = 256,
    budget: CheckBudget = FULL,
) -> None:
    """Refuse what `check` could not go through with, before it has begun; it takes the same arguments.

    Raises:
        InputError: the threat model, the images or the subject cannot be used.
    """
    if not (isinstance(threat, Linf | L2) and isinstance(threat.radius, float) and threat.radius > 0):
        raise InputError(f"The gate cannot attack in {threat}: give Linf or L2 with one radius above 0.")
    classes = len(images.classes)
    budget.reference(threat, classes, "standard")  # what it refuses is refused before the others have run
    _check(model, images.batch(torch.arange(min(len(images), batch_size))), classes)


def _check(model: EvaluatedModel, batch: tuple[Tensor, Tensor, Tensor], classes: int) -> None:
    """Refuse what evaluation will refuse, but probabilities, which are a finding."""
    network = frozen(model.network)
    x, y = batch[:2]

    def shifted(x: Tensor) -> Any:
        """Answers that look like no probabilities."""
        answers = network(x)
        return answers - 1 if isinstance(answers, Tensor) else answers

    check_images(x)
    check_labels(y, classes)
    with torch.no_grad(), torch_seed(0):
        check_classifier(shifted, x[:2].to(device_of(network)), classes, model.name)


def _with_verdicts(evidence: Evidence, found: Sequence[Verdict], threat: ThreatModel) -> Evidence:
    """The evidence, with what each trial broke at the radius in question, and one of them at every radius."""
    lost = {v.attack: v.lost for v in found if v.radius in (0.0, threat.radius)}
    return replace(evidence, lost=lost, curve={v.radius: v.lost for v in found if v.attack == "PGD-20"})


def _with_reference(evidence: Evidence, trial: Trial, images: ImageDataset, judge: Judge) -> Evidence:
    """The evidence, with what the reference breaks of the images that no white-box trial broke, and what it says."""
    white = evidence.white()
    rows = torch.tensor([row for row, i in enumerate(images.index.tolist()) if i not in white], dtype=torch.int64)
    if not len(rows):
        return replace(evidence, lost={**evidence.lost, trial.name: white})
    with flags() as said:
        found = judge(images.subset(rows), [trial])
    told: Any = dict.fromkeys(said)  # each process hears of its own images alone
    flagged = tuple(map(str, process_group().all_of(told)))
    return replace(evidence, lost={**evidence.lost, trial.name: white | found[-1].lost}, flagged=flagged)


@dataclass(frozen=True)
class _Attacker:
    """Who attacks a subject, knowing whether it answers at random.

    Every further answer of a random pipeline may be wrong by luck: there each attack gets equally many, all of them on
    what it returns.
    """

    threat: ThreatModel
    budget: CheckBudget
    random: bool

    def sees(self, view: View = white_box) -> View:
        """A view, averaged where the pipeline is random."""
        return Averaged(self.budget.samples, view) if self.random else view

    def trial(
        self, name: str, attack: Attack, restarts: int = 1, *, sees: View | None = None, run: Run = stop_at_success
    ) -> Trial:
        """An attack at the radius that it was made for."""
        threat: ThreatModel = getattr(attack, "threat", self.threat)
        sees = self.sees() if sees is None else sees
        if self.random:
            return Trial(name, attack, threat, self.budget.restarts, sees=sees, run=run_all_steps)
        return Trial(name, attack, threat, restarts, sees=sees, run=run)

    def pgd(self, threat: ThreatModel, steps: int = 20) -> PGD:
        """PGD that can cross the ball two and a half times."""
        return PGD(threat, steps, 2.5 * threat.radius / steps)

    def white_box(self, classes: int) -> list[Trial]:
        """Attacks by gradients of what is deployed."""
        threat, steps, pgd = self.threat, self.budget.steps, self.pgd(self.threat)
        return [
            self.trial("FGSM", fgsm(threat), run=run_all_steps),
            self.trial("PGD-20", pgd),
            self.trial("PGD-20 margin", replace(pgd, loss=margin)),
            self.trial("PGD long", self.pgd(threat, steps), self.budget.restarts),
            self.trial("APGD", APGD(threat, steps, loss=dlr if classes > 2 else margin), 2),
        ]

    def black_box(self, surrogates: Mapping[str, nn.Module]) -> list[Trial]:
        """Attacks that need no gradient of what is deployed, or take another classifier's."""
        threat, pgd = self.threat, self.pgd(self.threat)
        views = {f"transfer from {name}": Surrogate(network, name) for name, network in surrogates.items()}
        return [
            self.trial("noise", Noise(threat), 10, sees=white_box, run=run_all_steps),
            self.trial("Square", Square(threat, self.budget.queries)),
            *(self.trial(name, pgd, sees=view, run=run_all_steps) for name, view in views.items()),
        ]

    def round_the_defense(self) -> list[Trial]:
        """Attacks that do without the defense's gradient, one of them without the defense."""
        pgd = self.pgd(self.threat)
        return [
            self.trial("bypassed", pgd, sees=self.sees(oblivious), run=run_all_steps),
            self.trial("BPDA", replace(pgd, loss=margin), sees=self.sees(through_bpda)),
        ]

    def curve(self, shape: tuple[int, int, int]) -> list[Trial]:
        """PGD at half the radius, at twice it, and at one where any image may become gray."""
        kind, gray = (Linf, 0.5) if isinstance(self.threat, Linf) else (L2, 0.5 * math.prod(shape) ** 0.5)
        radius = self.threat.radius
        radii = {radius / 2, min(2 * radius, gray), gray} - {radius}
        return [self.trial("PGD-20", self.pgd(kind(each))) for each in sorted(radii)]

    def reference(self, classes: int) -> Trial:
        """The attack that has the last word."""
        attack = self.budget.reference(self.threat, classes, "rand" if self.random else "standard")
        sees = white_box if getattr(attack, "averages", False) else self.sees()
        return self.trial("AutoAttack", attack, sees=sees, run=run_all_steps)
