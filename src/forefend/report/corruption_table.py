"""Tables of accuracy on corrupted images: for each subject, corruptions down and severities across."""

from __future__ import annotations

from collections.abc import Sequence

from forefend.evaluation.corruption_robustness import ALL, CLEAN, MEAN, NOT_COMPARABLE, CorruptionResult
from forefend.runtime.formatting import markdown_table, percent, text_table


def text(cells: Sequence[CorruptionResult]) -> str:
    """A table for each subject, for the terminal, and what was measured."""
    blocks = [f"{title}\n{text_table(heading, rows)}" for title, heading, rows in tables_of(cells)]
    return "\n\n".join([*blocks, caption(cells)])


def markdown(cells: Sequence[CorruptionResult]) -> str:
    """The same in Markdown."""
    blocks = [f"**{title}**\n\n{markdown_table(heading, rows)}" for title, heading, rows in tables_of(cells)]
    return "\n\n".join([*blocks, caption(cells)])


def tables_of(cells: Sequence[CorruptionResult]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, heading and rows for each subject; a defended one also shows its gain over the same classifier alone."""
    found = []
    with_defense = any(c.defended for c in cells)
    for classifier, seen, defended in dict.fromkeys((c.classifier, c.seen, c.defended) for c in cells):
        own = [c for c in cells if (c.classifier, c.defended) == (classifier, defended)]
        alone = [c for c in cells if (c.classifier, c.defended) == (classifier, False)] if defended else []
        severities = sorted({c.severity for c in own if c.severity != ALL})
        heading = ["corruption", *map(str, severities), "mean", *(["gain"] if alone else [])]
        rows = [_row(name, severities, own, alone) for name in dict.fromkeys(c.corruption for c in own)]
        role = f" ({'guide' if seen else 'unseen'}), {'defended' if defended else 'undefended'}" if with_defense else ""
        note = f" — {NOT_COMPARABLE}" if any(c.made for c in own) else ""
        found.append((f"{classifier}{role}, n={own[0].n}{note}", heading, rows))
    return found


def caption(cells: Sequence[CorruptionResult]) -> str:
    """What was measured: unit, intervals, seed, and what the images may be compared with."""
    seeds = ", ".join(str(seed) for seed in sorted({c.seed for c in cells}))
    gain = "; gain: points of the mean over the classifier alone" if any(c.defended for c in cells) else ""
    note = f"; {NOT_COMPARABLE}" if any(c.made for c in cells) else ""
    return f"accuracy in %, [95% interval] by severity; seed {seeds}{gain}{note}"


def _row(
    name: str, severities: Sequence[int], own: Sequence[CorruptionResult], alone: Sequence[CorruptionResult]
) -> list[str]:
    here = {c.severity: c for c in own if c.corruption == name}
    label = {CLEAN: "clean", MEAN: "all, mean"}.get(name, name)
    row = [label, *(_share(here.get(severity)) for severity in severities), _share(here.get(ALL))]
    base = next((c for c in alone if (c.corruption, c.severity) == (name, ALL)), None)
    if alone:
        row.append(f"{100 * (here[ALL].accuracy - base.accuracy):+.1f}" if base else "–")
    return row


def _share(cell: CorruptionResult | None) -> str:
    return percent(cell.accuracy, cell.low, cell.high) if cell else ""
