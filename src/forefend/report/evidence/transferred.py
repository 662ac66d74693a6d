"""Section 5: images crafted on other models, as a heat map of seen and unseen classifiers."""

from __future__ import annotations

from forefend.evaluation.statistics import wilson
from forefend.evaluation.transferability.matrix import ANY, DEFENDED, TransferMatrix
from forefend.report.evidence import commands
from forefend.report.evidence.evaluations import z_of
from forefend.report.evidence.headline import verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.page import charts
from forefend.report.page.blocks import (
    COMPLETE,
    MISSING,
    Block,
    Cell,
    Figure,
    Heading,
    Notice,
    Section,
    Share,
    Table,
    Text,
)


def section(sources: Sources) -> Section:
    """Return a heat map and a table for each attack of each matrix."""
    verdict = verdict_of(sources)
    if not sources.transfers and verdict and not verdict.defended:
        text = "There is no defense: transfer is measured on classifiers behind one."
        return Section("transfer", "Transfer between models", [Text(text)])
    if not sources.transfers:
        command = commands.forefend("transfer", sources, *commands.threat(sources, verdict))
        text = "Transfer was not measured: nothing here tells how images crafted on other models mislead these."
        return Section("transfer", "Transfer between models", [Notice(MISSING, text, command)], MISSING)
    found: list[Block] = []
    for name, matrix in sources.transfers.items():
        found.append(Heading(name))
        found += [Figure(*_figure(matrix, attack)) for attack in matrix.attacks]
        found += [
            _table(matrix, sources.confidence),
            *(Notice("partial", warning) for warning in matrix.warnings),
        ]
    lead = "Rows are the classifiers behind the defense; columns say on which model the images were crafted."
    return Section("transfer", "Transfer between models", found, COMPLETE, lead)


def _figure(matrix: TransferMatrix, attack: str) -> tuple[str, str, str, str]:
    cells = [cell for cell in matrix.cells if cell.attack in ("", attack)]
    columns = list(dict.fromkeys(_column(cell.source, cell.behind) for cell in cells))
    names = list(matrix.classifiers)
    places = {(names.index(c.classifier), columns.index(_column(c.source, c.behind))): c.accuracy for c in cells}
    framed = [(names.index(c.classifier), columns.index(_column(c.source, c.behind))) for c in cells if c.white_box]
    rows = [f"{name} ({'seen' if seen else 'unseen'})" for name, seen in matrix.classifiers.items()]
    shown = [
        [f"{100 * places[i, j]:.0f} % on {column}" for j, column in enumerate(columns) if (i, j) in places]
        for i in range(len(rows))
    ]
    alt = "; ".join(f"{row}: {', '.join(texts)}" for row, texts in zip(rows, shown, strict=True))
    caption = "Accuracy in %. A frame marks the white-box attack, crafted on the same classifier and defense."
    return f"{attack}, {matrix.threat}", alt, charts.heat_map(rows, columns, places, framed), caption


def _column(source: str, behind: str) -> str:
    if not source:
        return "clean"
    return f"{source} + defense" if behind == DEFENDED else f"{source} + {behind}" if behind else source


def _table(matrix: TransferMatrix, confidence: float) -> Table:
    z = z_of(confidence)
    rows: list[list[Cell]] = []
    held = {(cell.row, cell.classifier): cell for cell in matrix.cells}
    for row in dict.fromkeys(cell.row for cell in matrix.cells):
        attack, source, behind = row
        cells: list[Cell] = []
        for classifier in matrix.classifiers:
            cell = held.get((row, classifier))
            bounds = wilson(round(cell.accuracy * cell.n), cell.n, z) if cell else (0.0, 0.0)
            cells.append(Share(cell.accuracy, *bounds, cell.n, bold=cell.white_box) if cell else "–")
        rows.append(
            [attack or "none", source or "–", behind or ("–" if not source or source == ANY else "nothing"), *cells]
        )
    titles = [f"{classifier} ({'seen' if seen else 'unseen'})" for classifier, seen in matrix.classifiers.items()]
    about = f"{matrix.about['data']}, seed {matrix.seed}, n={matrix.cells[0].n}"
    caption = f"Accuracy in %, [{100 * confidence:g} % Wilson interval]; {about}. Bold: white box."
    return Table(["attack", "crafted on", "behind", *titles], rows, caption)
