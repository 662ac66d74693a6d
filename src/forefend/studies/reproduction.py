"""Run a table or figure: perform its tasks, read its cells, and write what was found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from forefend.checks import InputError, choose
from forefend.report import figures
from forefend.runtime.folders import make_folder
from forefend.runtime.formatting import duration, text_table
from forefend.studies import catalog, output
from forefend.studies.runner import perform_all
from forefend.studies.table import Cell, Picture, Table, outcome
from forefend.studies.tasks import Place, Task, with_needs
from forefend.studies.workers import Workers, one_by_one


def reproduce(
    paper: str,
    table: Table,
    scale: str,
    place: Place,
    out: Path,
    *,
    only: Sequence[str] = (),
    workers: Workers = one_by_one,
    at_once: int | None = 1,
) -> str:
    """Run the cells of a table, write the table and its figure, and return the table in Markdown.

    Finished tasks are not performed again, and an interrupted one resumes. The table is also written after an
    interruption, from what is finished.

    Args:
        paper: the name of the study.
        table: its table or figure.
        scale: at which it is run.
        place: where tasks keep their results.
        out: the folder of the table.
        only: run only cells whose name holds one of these texts; none for all.
        workers: where tasks are performed.
        at_once: how many tasks may be submitted and not ended; None for all whose needs are finished.

    Raises:
        InputError: an unknown scale, or no cell of these names.
    """
    cells, picture = table.cells_at(scale), table.picture_at(scale)
    chosen = selected(cells, only) if cells else []
    tasks = [task for cell in chosen for task in cell.tasks()] + list(picture.rows.values() if picture else [])
    make_folder(out)
    failures: dict[str, str] = {}
    try:
        failures = perform_all(tasks, place, workers, at_once)
    finally:
        found = output.found_of(paper, table, scale, [outcome(cell, place, failures) for cell in cells])
        if cells:
            output.save(out, found, cells, place)
        _draw(table, found, picture, place, out)
    words = output.markdown(found) if cells else "\n".join(failures.values())
    return f"{words}\n\n{out}: {', '.join(sorted(path.name for path in out.iterdir()))}"


def selected(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells whose name holds one of some texts, whatever the case; all of them without a text.

    Raises:
        InputError: there is none.
    """
    found = [cell for cell in cells if not only or any(text.lower() in cell.name.lower() for text in only)]
    if not found:
        raise InputError(f"No cell holds {' or '.join(map(repr, only))} in its name: see the names with --list.")
    return found


def _draw(table: Table, found: output.Found, picture: Picture | None, place: Place, out: Path) -> None:
    measured = [cell for cell in found.outcomes if cell.counts]
    if table.draw and measured:
        table.draw(measured, out / "figure", table.unit)
    rows: dict[str, Tensor] = {}
    for title, task in picture.rows.items() if picture else ():
        if task.seconds(place) is not None:
            images = task.images(place)
            rows |= dict(_row(images, kind, title) for kind in picture.kinds)  # type: ignore[union-attr]
    if rows:
        figures.grid(rows, out / "figure")


def _row(images: dict[str, Tensor], kind: str, title: str) -> tuple[str, Tensor]:
    """The title and the first ten images of a kind; of a difference, the title tells the mean over all images."""
    first, minus, second = kind.partition(" − ")
    if not minus:
        return "x" if kind == "x" else f"{kind}, {title}", images[first][:10]
    difference = (images[first] - images[second]).abs()
    return f"|{kind}|, {title}: mean {255 * float(difference.mean()):.1f} / 255", difference[:10]


def list_tables(place: Place, paper: str | None = None) -> str:
    """List all tables and figures, or those of one paper, with their state at each scale."""
    rows = []
    if paper is not None:
        choose(paper, catalog.STUDIES, "study")
    for name, tables in catalog.STUDIES.items():
        for table in tables if paper in (None, name) else ():
            states = catalog.states(name, table, place)
            shown = ", ".join(f"{scale}: {state}" for scale, state in states.items())
            rows.append([name, table.name, table.title, shown])
    return text_table(["paper", "table", "shows", "state by scale"], rows)


def list_cells(table: Table, scale: str, place: Place, only: Sequence[str] = ()) -> str:
    """List the cells of a table with the paper's numbers and the cost of what they need.

    A training or measurement that several cells share counts in the first of them.
    """
    rows, seen = [], set[str]()
    for cell in selected(table.cells_at(scale), only):
        new = {key: task for key, task in with_needs(cell.tasks()).items() if key not in seen}
        seen |= new.keys()
        rows.append([cell.name, "" if cell.paper is None else f"{cell.paper}", *_cost(cell, list(new.values()), place)])
    text = text_table(["cell", "paper", "state", "gradients of one image", "measured"], rows)
    every = with_needs([task for cell in selected(table.cells_at(scale), only) for task in cell.tasks()])
    left = sum(task.gradients(place) for task in every.values() if task.seconds(place) is None)
    return f"{text}\n{len(every)} trainings and measurements; {left / 1e6:.2f} million gradients of one image are left"


def _cost(cell: Cell, new: Sequence[Task], place: Place) -> list[str]:
    if cell.quoted:
        return ["quoted", "", ""]
    finished = all(task.seconds(place) is not None for task in cell.tasks())
    gradients = sum(task.gradients(place) for task in new)
    seconds = sum(task.seconds(place) or 0.0 for task in new)
    return ["finished" if finished else "to do", f"{gradients:,.0f}", duration(seconds) if seconds else ""]
