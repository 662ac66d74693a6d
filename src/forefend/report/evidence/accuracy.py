"""Section 4: accuracy against radius, with a row for each attack."""

from __future__ import annotations

from forefend.evaluation.results import CLEAN, WORST, Result, column_title, columns_of
from forefend.report.evidence import commands
from forefend.report.evidence.evaluations import FoundEvaluation
from forefend.report.evidence.headline import share_of, verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.page import charts
from forefend.report.page.blocks import (
    COMPLETE,
    MISSING,
    PARTIAL,
    Block,
    Cell,
    Figure,
    Heading,
    Notice,
    Section,
    Table,
    Text,
)


def section(sources: Sources) -> Section:
    """Return for each evaluation its curve and its attacks."""
    found: list[Block] = []
    attacked = [one for one in sources.evaluations if any(result.norm for result in one.results)]
    for one in attacked:
        found += [
            Heading(one.folder.resolve().name),
            Text(_about(one)),
            *_curves(one, sources.confidence),
            _table(one, sources),
        ]
    if not attacked:
        found.append(
            Notice(MISSING, "No evaluation attacked this run.", commands.evaluate(sources, verdict_of(sources)))
        )
    several = any(len({r.radius for r in one.results if r.norm}) > 1 for one in attacked)
    grade = MISSING if not attacked else COMPLETE if several else PARTIAL
    lead = "Each attack has its row. The worst counts an image as wrong if any attack of the evaluation misleads it."
    return Section("accuracy", "Accuracy against radius", found, grade, lead)


def _about(one: FoundEvaluation) -> str:
    n = max(result.n for result in one.results)
    source = "read from its summary, which no records confirm" if one.uncounted else "counted again from the records"
    return f"{n:,} images of {one.data or 'an unrecorded set'}, {source}."


def _curves(one: FoundEvaluation, confidence: float) -> list[Block]:
    found: list[Block] = []
    for norm in dict.fromkeys(result.norm for result in one.results if result.norm):
        lines: dict[str, list[charts.Point]] = {}
        for result in sorted(one.results, key=lambda r: r.radius):
            if result.norm in ("", norm) and _shown(one, result):
                name = f"{result.classifier}, {'defended' if result.defended else 'alone'}"
                lines.setdefault(name, []).append((result.radius, result.accuracy, result.low, result.high))
        if max(len(points) for points in lines.values()) < 3:
            continue
        alt = "; ".join(
            f"{name}: {', '.join(f'{100 * value:.1f} % at {place:.4g}' for place, value, _, _ in points)}"
            for name, points in lines.items()
        )
        dashed = [name for name in lines if name.endswith("alone")] if any(r.defended for r in one.results) else []
        drawn = charts.curves(lines, f"{norm} radius, pixels in [0, 1]", "accuracy, %", dashed)
        caption = f"Bands are {100 * confidence:g} % Wilson intervals."
        found.append(Figure(f"Accuracy under the worst attack, {norm}", alt, drawn, caption))
    return found


def _shown(one: FoundEvaluation, result: Result) -> bool:
    """Whether a result is a point of a curve: clean images, and the worst attack at each radius."""
    has_worst = any(other.attack == WORST for other in one.results)
    return result.attack in (CLEAN, WORST) or not has_worst


def _table(one: FoundEvaluation, sources: Sources) -> Table:
    columns = [column for column in columns_of(one.results) if column[0]]
    rows: list[list[Cell]] = []
    for classifier, defended, attack in dict.fromkeys(
        (r.classifier, r.defended, r.attack) for r in one.results if r.norm
    ):
        own = [r for r in one.results if (r.classifier, r.defended) == (classifier, defended)]
        shares: list[Cell] = []
        for column in columns:
            here = next((r for r in own if (r.attack, r.norm, r.radius) == (attack, *column)), None)
            shares.append(share_of(here, bold=attack == WORST) if here else "–")
        name = "worst of all" if attack == WORST else attack
        rows.append([classifier, "defense" if defended else "alone", name, *shares])
    heading = ["classifier", "", "attack", *(column_title(*column) for column in columns)]
    return Table(heading, rows, f"Accuracy in %, [{100 * sources.confidence:g} % Wilson interval].")
