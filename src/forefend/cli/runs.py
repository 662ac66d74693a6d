"""`forefend runs`: list the runs in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forefend.checks import choose
from forefend.cli.parser import Parser

# What --sort names: the field of a run, and whether the largest comes first.
COLUMNS = {
    "newest": ("started", True),
    **{name: (name, False) for name in ("name", "recipe", "data", "threat", "state", "seed")},
    **{name: (name, True) for name in ("clean", "robust", "size")},
}


def main(arguments: list[str]) -> int:
    """Print a row for each run, or JSON."""
    parser = Parser("runs", "List the runs in a folder: what each is, how far it is, and its best numbers.")
    parser.add_argument("folder", nargs="?", type=str, default="runs", help="folder of runs")
    parser.add_argument("--sort", type=str, default="newest", help=f"{', '.join(COLUMNS)}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    column, largest_first = choose(options.sort, COLUMNS, "column to sort by")
    print(_listing(Path(options.folder), column, largest_first, options.json))
    return 0


def _listing(folder: Path, column: str, largest_first: bool, as_json: bool) -> str:
    from forefend.report import run_list
    from forefend.runtime.files import FORMAT

    runs = run_list.in_order(run_list.list_runs(folder), column, largest_first=largest_first)
    if as_json:
        content: dict[str, Any] = {"format": FORMAT, "runs": [run_list.as_json(run) for run in runs]}
        return json.dumps(content, indent=1, ensure_ascii=False)
    return run_list.table(runs) if runs else f"There is no run in {folder}: `forefend train` makes one."
