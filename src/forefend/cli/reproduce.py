"""`forefend reproduce`: run a table or figure of a paper, and set our numbers beside its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forefend.cli.parser import Parser

if TYPE_CHECKING:
    from forefend.studies.workers import Workers


def main(arguments: list[str]) -> int:
    """Run the cells of a table, or list them, or list all tables."""
    parser = Parser("reproduce", "Run a table or figure of one of the five papers, with our numbers beside its own.")
    parser.add_argument("paper", nargs="?", type=str | None, help="aaa, jatp, robustifier, rtfe, transfer or freezing")
    parser.add_argument("table", nargs="?", type=str | None, help="such as table-5 or figure-1")
    parser.add_argument("--scale", type=str, default="cpu", help="smoke (digits, seconds), cpu or paper (as published)")
    parser.add_argument("--list", action="store_true", help="list all tables, or the cells of one with their cost")
    parser.add_argument("--only", nargs="+", type=str, default=[], help="run only cells with such names")
    parser.add_argument("--processes", type=int, default=1, help="trainings and measurements that run at once")
    parser.add_argument("--on", type=str, default="here", help="here, ray, ray://ADDRESS:PORT or slurm")
    parser.add_argument("--runs", type=str, default="runs/studies", help="folder of what is trained and measured")
    parser.add_argument("--out", type=str | None, help="folder of the table (else RUNS/PAPER/TABLE-SCALE)")
    parser.add_argument("--data-dir", type=str | None, help="folder of data sets (else FOREFEND_DATA, else .data)")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (else the fastest available)")
    options = parser.parse_args(arguments)
    print(_run(options))
    return 0


def _run(options: Any) -> str:
    from forefend.checks import InputError
    from forefend.runtime.threads import choose_threads
    from forefend.studies import catalog
    from forefend.studies.reproduction import list_cells, list_tables, reproduce
    from forefend.studies.tasks import Place

    choose_threads()
    runs, data_dir = Path(options.runs), options.data_dir or os.environ.get("FOREFEND_DATA")
    if options.on != "here":  # on other machines the working folder and the environment may differ
        runs, data_dir = runs.resolve(), data_dir and str(Path(data_dir).resolve())
    place = Place(runs, Path(data_dir) if data_dir else None, options.device)
    if options.paper is None or options.table is None:
        if not options.list:
            raise InputError("No table was named: give a paper and a table, such as aaa table-5, or --list.")
        return list_tables(place, options.paper)
    table = catalog.find(options.paper, options.table)
    if options.list:
        return list_cells(table, options.scale, place, options.only)
    out = Path(options.out) if options.out else Path(options.runs) / options.paper / f"{table.name}-{options.scale}"
    workers, at_once = _workers(options, runs)
    found = {"only": options.only, "workers": workers, "at_once": at_once}
    return reproduce(options.paper, table, options.scale, place, out, **found)


def _workers(options: Any, runs: Path) -> tuple[Workers, int | None]:
    """Where tasks are performed, and how many at once.

    Raises:
        InputError: an unknown place, or its package is not installed.
    """
    from forefend.checks import InputError
    from forefend.studies import workers

    if options.on == "here":
        several = options.processes > 1
        return workers.processes(options.processes) if several else workers.one_by_one, options.processes
    if options.on == "ray" or options.on.startswith("ray://"):
        return workers.on_ray(None if options.on == "ray" else options.on), None
    if options.on == "slurm":
        return workers.on_slurm(runs / "slurm"), None
    raise InputError(f"Tasks cannot be performed on {options.on!r}, expected here, ray, ray://ADDRESS:PORT or slurm.")
