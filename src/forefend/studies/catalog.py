"""All studies, and the state of their tables and figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from forefend.checks import choose
from forefend.data import published
from forefend.runtime.files import read_versioned
from forefend.studies import aaa, freezing, jatp, robustifier, rtfe, transfer
from forefend.studies.measurements import Accuracy, CorruptedAccuracy, Outputs
from forefend.studies.networks import Trained
from forefend.studies.table import Table
from forefend.studies.tasks import Place, Task, with_needs

STUDIES: Mapping[str, Sequence[Table]] = {
    "aaa": aaa.TABLES,
    "freezing": freezing.TABLES,
    "jatp": jatp.TABLES,
    "robustifier": robustifier.TABLES,
    "rtfe": rtfe.TABLES,
    "transfer": transfer.TABLES,
}
COMMITTED = Path("results/studies")  # below the repository


def find(paper: str, name: str) -> Table:
    """Return the table or figure of a paper.

    Raises:
        InputError: there is none of that name.
    """
    tables = choose(paper, STUDIES, "study")
    return choose(name, {table.name: table for table in tables}, f"table or figure of {paper}")


def tasks_of(table: Table, scale: str) -> list[Task]:
    """The measurements of a table at a scale."""
    picture = table.picture_at(scale)
    return [task for cell in table.cells_at(scale) for task in cell.tasks()] + list(
        picture.rows.values() if picture else []
    )


def states(paper: str, table: Table, place: Place, committed: Path = COMMITTED) -> dict[str, str]:
    """Return for each scale whether a table is committed, all or in part, runnable here, or what it lacks."""
    found = {}
    for scale in table.scales():
        folder = committed / paper / f"{table.name}-{scale}"
        if (folder / "table.json").exists():
            cells = read_versioned(folder / "table.json")["outcomes"]
            whole = all(cell["counts"] or cell["quoted"] for cell in cells)
            found[scale] = "committed" if whole else "committed in part"
        elif scale in table.picture and (folder / "figure.png").exists():
            found[scale] = "committed"
        elif scale == "paper" and not torch.cuda.is_available():
            found[scale] = "needs a GPU"
        else:
            missing = _missing(tasks_of(table, scale), place)
            found[scale] = f"needs the data set {missing}" if missing else "runnable here"
    return found


def _missing(tasks: Sequence[Task], place: Place) -> str:
    """The name of a data set that is not here; empty if all are."""
    names = set()
    for task in with_needs(tasks).values():
        if isinstance(task, Trained):
            names.add((task.data, "train"))
        elif isinstance(task, Accuracy | CorruptedAccuracy | Outputs):
            names.add((task.pipeline.data, "test"))
    home = Path(place.data_dir or os.environ.get("FOREFEND_DATA", ".data"))
    wanted = [(name, split) for name, split in sorted(names) if name in published.SETS]
    return next((name for name, split in wanted if not published.find_files(name, split, home)), "")
