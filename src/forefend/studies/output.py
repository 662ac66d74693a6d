"""What a study writes: its table in Markdown, CSV and JSON, the counted verdicts, and the figure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isclose
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.movement import mean_of
from forefend.evaluation.records import Record
from forefend.evaluation.results import CLEAN
from forefend.runtime.files import json_line, provenance, read_versioned, write, write_versioned
from forefend.runtime.formatting import markdown_table
from forefend.studies.costs import Price
from forefend.studies.measurements import Count, Measurement
from forefend.studies.robustbench import entries
from forefend.studies.table import Cell, Outcome, Table
from forefend.studies.tasks import Place

COLUMNS = ("row", "column", "paper", "quoted", "ours", "sd", "n", "seeds", "difference", "same_setting", "failed")


@dataclass(frozen=True)
class Found:
    """A table with what was found.

    Args:
        paper: the name of its study.
        table: its name.
        scale: at which it was run.
        title: what it shows.
        place: where it is in the paper.
        unit: of its numbers.
        note: what a reader must know about it.
        outcomes: its cells.
    """

    paper: str
    table: str
    scale: str
    title: str
    place: str
    unit: str
    note: str
    outcomes: Sequence[Outcome]


def save(folder: Path, found: Found, cells: Sequence[Cell], place: Place) -> None:
    """Write the records that the finished cells are counted from, and the table.

    Args:
        folder: where to.
        found: the table.
        cells: its cells, with their tasks.
        place: where the tasks keep their results.
    """
    measured = {task.key: task for cell in cells for task in cell.tasks() if task.seconds(place) is not None}
    used: dict[tuple[str, str, int], Record] = {}
    for task in measured.values():
        if isinstance(task, Measurement):
            used |= {(record.model, record.trial, record.seed): record for record in task.verdicts(place)}
    write(folder / "records.jsonl", b"".join(json_line(used[key]) for key in sorted(used)))
    content = asdict(found)
    write_versioned(folder / "table.json", content | {"about": provenance()})
    write_versioned(folder / "robustbench.json", {"models": entries(found.paper, cells, place)})
    write(folder / "table.md", (markdown(found) + "\n").encode())
    write(folder / "table.csv", to_csv(found).encode())


def load(folder: Path) -> Found:
    """Read a table, and count its cells again from the records beside it.

    Raises:
        InputError: there is none, or a count differs from its records.
    """
    content = read_versioned(folder / "table.json")
    verdicts = {(r.model, r.trial, r.seed): r for r in records.read(folder / "records.jsonl")}
    try:
        outcomes = [_outcome(cell) for cell in content["outcomes"]]
        known = {f.name: content[f.name] for f in fields(Found)}
    except (KeyError, TypeError):
        raise InputError(f"{folder}/table.json is no table of a study: run forefend reproduce again.") from None
    for outcome in outcomes:
        for count in (count for counts in outcome.counts for count in counts):
            if isinstance(count, Count) and not _same(_recount(count, verdicts), count):
                raise InputError(
                    f"{folder}: the count of {outcome.row} / {outcome.column} differs from its records: run forefend "
                    "reproduce again."
                )
    return Found(**{**known, "outcomes": outcomes})


def _outcome(cell: dict[str, Any]) -> Outcome:
    counts = [[Count(**count) if "trials" in count else Price(**count) for count in run] for run in cell["counts"]]
    return Outcome(**{**cell, "counts": counts})


def _same(found: Count | None, count: Count) -> bool:
    """Whether two counts are equal; the order of a sum may change the last digits of its mean."""
    if found is None or len(found.moved) != len(count.moved):
        return False
    close = all(isclose(one, other) for one, other in zip(found.moved, count.moved, strict=True))
    return close and replace(found, moved=()) == replace(count, moved=())


def _recount(count: Count, verdicts: dict[tuple[str, str, int], Record]) -> Count | None:
    """Count the verdicts again; None where one is missing."""
    keys = [(count.model, trial, count.seed) for trial in (CLEAN, *count.trials)]
    if any(key not in verdicts for key in keys):
        return None
    images, attacked = len(verdicts[keys[0]].index), [verdicts[key] for key in keys[1:]]
    right = sum(not wrong for record in attacked for wrong in record.misclassified)
    moved = mean_of(attacked[0].moved)
    means = [moved.attack, moved.output] if moved and count.moved else []
    return Count(count.model, count.trials, count.seed, images * len(attacked), right, means)


def markdown(found: Found) -> str:
    """Return the table in Markdown: ours, and in brackets the paper's and the difference."""
    columns = list(dict.fromkeys(o.column for o in found.outcomes))
    at = {(o.row, o.column): o for o in found.outcomes}
    rows = [
        [row, *(_cell(at[row, column]) if (row, column) in at else "" for column in columns)]
        for row in dict.fromkeys(o.row for o in found.outcomes)
    ]
    return "\n\n".join([markdown_table(["", *columns], rows), *_notes(found)])


def _cell(outcome: Outcome) -> str:
    paper = outcome.paper if isinstance(outcome.paper, str) else _number(outcome.paper)
    if outcome.quoted:
        return f"({paper}, quoted)"
    ours, spread, gap = outcome.ours(), outcome.spread(), outcome.gap()
    if ours is None:
        return f"{'failed' if outcome.failed else '–'} ({paper})" if paper else "failed" if outcome.failed else "–"
    text = f"{ours:,.{0 if outcome.value == 'parameters' else 1}f}" + (f" ± {spread:.1f}" if spread is not None else "")
    beside = ", ".join(filter(None, [paper, "" if gap is None else f"{gap:+.1f}"]))
    return f"**{text}**" + (f" ({beside})" if beside else "")


def _number(value: float | str | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else value


def _notes(found: Found) -> list[str]:
    """The lines under a table: what the numbers are, how the setting differs, and what failed."""
    measured = [o for o in found.outcomes if o.n() is not None]
    sizes = sorted({o.n() or 0 for o in measured})
    seeds = sorted({len(o.counts) for o in measured})
    lines = [f"{found.unit[0].upper()}{found.unit[1:]}: **ours** (the paper's, difference); {found.place}."]
    if measured:
        counts = [count for o in measured if "accuracy" in o.value for run in o.counts for count in run]
        bounds = [count.interval() for count in counts if isinstance(count, Count)]
        widest = max((high - low for low, high in bounds), default=0.0)
        interval = f", 95% interval of one accuracy at most ± {widest / 2:.1f}" if bounds else ""
        images = " or ".join(f"{size:,}" for size in sizes)
        several = (
            f", {' or '.join(map(str, seeds))} seeds (mean ± standard deviation)" if seeds != [1] else ", one seed"
        )
        lines[0] += f" Scale {found.scale}: n = {images}{several}{interval}."
    differences = dict.fromkeys(o.differs for o in found.outcomes if not o.quoted)
    for text in differences:
        own = [o for o in found.outcomes if o.differs == text and not o.quoted]
        where = "" if len(differences) == 1 else f" ({_where(own, found)})"
        lines.append(f"Same setting?{where} {'No: ' + text if text else 'Yes'}.")
    if found.note:
        lines.append(found.note)
    failed = [f"- {o.row} / {o.column}: {o.failed}" for o in found.outcomes if o.failed]
    return lines + (["Failed:\n" + "\n".join(failed)] if failed else [])


def _where(own: Sequence[Outcome], found: Found) -> str:
    """Name some cells by their rows, or by their columns where they are in all rows."""
    rows, columns = ([*dict.fromkeys(getattr(o, part) for o in own)] for part in ("row", "column"))
    everywhere = len(rows) == len({o.row for o in found.outcomes if not o.quoted})
    return ", ".join(columns if everywhere else rows)


def to_csv(found: Found) -> str:
    """Return the cells as lines of CSV: row, column, the paper's, ours with n, seeds and spread, and the difference."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for o in found.outcomes:
        figures = [_rounded(value) for value in (o.ours(), o.spread())]
        same = "" if o.quoted else f"no: {o.differs}" if o.differs else "yes"
        paper = "" if o.paper is None else o.paper
        line = [o.row, o.column, paper, o.quoted, *figures, o.n() or "", len(o.counts), _rounded(o.gap()), same]
        lines.writerow([*line, o.failed])
    return text.getvalue()


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def found_of(paper: str, table: Table, scale: str, outcomes: Sequence[Outcome]) -> Found:
    """Return a table with its outcomes."""
    return Found(paper, table.name, scale, table.title, table.place, table.unit, table.note, outcomes)


def renewed(document: str, root: Path) -> str:
    """A document whose every `<!-- study FOLDER -->` … `<!-- end -->` block holds the table in that folder.

    Args:
        document: Markdown.
        root: where the folders' names start.

    Raises:
        InputError: a folder holds no table, or one whose counts differ from its records.
    """

    def block(match: re.Match[str]) -> str:
        return f"<!-- study {match['folder']} -->\n{markdown(load(root / match['folder']))}\n<!-- end -->"

    return re.sub(r"<!-- study (?P<folder>\S+) -->\n.*?<!-- end -->", block, document, flags=re.DOTALL)
