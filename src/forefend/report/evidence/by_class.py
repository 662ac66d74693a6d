"""Section 7: the drop by class, the worst classes, and pictures of failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forefend.evaluation.recount import Recount
from forefend.report.evidence import commands, failures
from forefend.report.evidence.evaluations import FoundEvaluation, counted_share, z_of
from forefend.report.evidence.headline import Verdict, verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.page import charts
from forefend.report.page.blocks import COMPLETE, MISSING, PARTIAL, Block, Cell, Figure, Notice, Section, Share, Table

DRAWN = 12  # classes in a figure; a table holds up to `LISTED`
LISTED = 40


@dataclass(frozen=True)
class ClassAccuracy:
    """The accuracy of one class, on clean images and under the worst attack of each image."""

    name: str
    clean: Share
    robust: Share

    @property
    def drop(self) -> float:
        """What the attacks take, as a share of the images of the class."""
        return self.clean.value - self.robust.value


def section(sources: Sources) -> Section:
    """Return the accuracy by class of the weakest classifier, and pictures."""
    verdict = verdict_of(sources)
    found: list[Block] = []
    classes = by_class(verdict, sources.confidence) if verdict else []
    if verdict and classes:
        found += _blocks(verdict, classes, sources)
    else:
        text = "The records do not say which image belongs to which class, or nothing was attacked."
        found.append(Notice(MISSING, text, commands.evaluate(sources, verdict)))
    pictures = failures.blocks(sources, verdict)
    grade = MISSING if not classes else COMPLETE if not isinstance(pictures[0], Notice) else PARTIAL
    return Section("classes", "Where it fails", [*found, *pictures], grade)


def by_class(verdict: Verdict, confidence: float) -> list[ClassAccuracy]:
    """Return the accuracies of each class for the weakest classifier of a verdict, the lowest first."""
    one, labels = verdict.evaluation, verdict.evaluation.labels
    model = next((m for m in one.models if _is_weakest(verdict, m)), None)
    if model is None or not labels:
        return []
    clean = model.verdicts[0]
    broken = broken_in(model, verdict)
    z = z_of(confidence)
    found = []
    for label in sorted({labels[i] for i in clean if i in labels}):
        own = [i for i in clean if labels.get(i) == label]
        name = _name(one, label)
        counts = sum(not clean[i] for i in own), sum(i not in broken for i in own)
        shares = [counted_share(count, len(own), z) for count in counts]
        found.append(ClassAccuracy(name, *shares))
    return sorted(found, key=lambda one: one.robust.value)


def broken_in(model: Recount, verdict: Verdict) -> frozenset[int]:
    """Return the images that an attack of the verdict's threat model misleads, or that are wrong without one."""
    broken = {i for i, wrong in model.verdicts[0].items() if wrong}
    for (_, norm, radius, _), verdicts in zip(model.model.trials, model.verdicts[1:], strict=True):
        if (norm, radius) == (verdict.norm, verdict.radius):
            broken |= {i for i, wrong in verdicts.items() if wrong}
    return frozenset(broken)


def _is_weakest(verdict: Verdict, model: Recount) -> bool:
    return (model.model.classifier, model.model.defended) == (verdict.weakest.classifier, verdict.defended)


def _name(one: FoundEvaluation, label: int) -> str:
    names = one.results.classes
    return str(names[label]) if 0 <= label < len(names) else f"class {label}"


def _blocks(verdict: Verdict, classes: Sequence[ClassAccuracy], sources: Sources) -> list[Block]:
    worst, behind = classes[0], " behind the defense" * verdict.defended
    shown = list(classes[:DRAWN])
    alt = "; ".join(f"{c.name}: {c.clean.percent} % clean, {c.robust.percent} % attacked" for c in shown)
    bars: Mapping[str, Sequence[float]] = {
        "clean": [c.clean.value for c in shown],
        f"attacked, {verdict.threat}": [c.robust.value for c in shown],
    }
    drawn = charts.bars([c.name for c in shown], bars, "accuracy, %")
    which = f"The {len(shown)} worst of {len(classes)} classes" if len(classes) > len(shown) else "Accuracy by class"
    caption = (
        f"{verdict.weakest.classifier}{behind}. The worst class is {worst.name}: {worst.clean.percent} % clean, "
        f"{worst.robust.percent} % under attack."
    )
    rows: list[list[Cell]] = [
        [c.name, str(c.clean.n), c.clean, c.robust, f"{-100 * c.drop:+.1f}" if c.drop else "0.0"]
        for c in classes[:LISTED]
    ]
    interval = f"[{100 * sources.confidence:g} % Wilson interval]"
    table = f"Accuracy in %, {interval}; {verdict.threat}, worst attack of each image.{_note(verdict, classes)}"
    heading = ["class", "images", "clean", "attacked", "points"]
    return [Figure(which, alt, drawn, caption), Table(heading, rows, table)]


def _note(verdict: Verdict, classes: Sequence[ClassAccuracy]) -> str:
    known, n = sum(c.clean.n for c in classes), verdict.weakest.clean.n
    left = (
        f" {n - known} images that every model misclassifies have no recorded class and are left out."
        if known < n
        else ""
    )
    return left + (f" The {LISTED} worst of {len(classes)} classes." if len(classes) > LISTED else "")
