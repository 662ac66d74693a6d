"""`forefend reproduce`: run a table or figure of a paper, and set our numbers beside its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Run the cells of a table, or list them, or list all tables."""
    parser = Parser("reproduce", "Run a table or figure of one of the five papers, with our numbers beside its own.")
    parser.add_argument("paper", nargs="?", type=str | None, help="aaa, jatp, robustifier, rtfe or transfer")
    parser.add_argument("table", nargs="?", type=str | None, help="such as table-5 or figure-1")
    parser.add_argument("--scale", type=str, default="cpu", help="smoke (digits, seconds), cpu or paper (as published)")
    parser.add_argument("--list", action="store_true", help="list all tables, or the cells of one with their cost")
    parser.add_argument("--only", nargs="+", type=str, default=[], help="run only cells with such names")
    parser.add_argument("--processes", type=int, default=1, help="trainings and measurements that run at once")
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
    place = Place(Path(options.runs), options.data_dir and Path(options.data_dir), options.device)
    if options.paper is None or options.table is None:
        if not options.list:
            raise InputError("No table was named: give a paper and a table, such as aaa table-5, or --list.")
        return list_tables(place, options.paper)
    table = catalog.find(options.paper, options.table)
    if options.list:
        return list_cells(table, options.scale, place, options.only)
    out = Path(options.out) if options.out else Path(options.runs) / options.paper / f"{table.name}-{options.scale}"
    return reproduce(options.paper, table, options.scale, place, out, only=options.only, processes=options.processes)
