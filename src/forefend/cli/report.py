"""`forefend report`: tables of saved results, the evidence page of a run, and the page that compares runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from forefend.checks import InputError
from forefend.cli.parser import Parser

CONFIDENCE, MOST_CONFIDENT = 0.95, 0.999999
TABLE_ALONE = ("attacks", "changes", "cumulative", "seeds", "markdown", "readme")  # options that a page does not have

OTHERS = ("transfer.json", "corruptions.json", "compare.json", "models.json", "tracking.json")  # files of runs


def main(arguments: list[str]) -> int:
    """Print the table of each folder, update the tables of a document, or make a page."""
    parser = Parser(
        "report", "Print the table of an evaluation, or make the page of a run or of several, from records."
    )
    parser.add_argument("folders", nargs="*", type=str, help="folders with a summary.json; for a page, those of runs")
    parser.add_table()
    parser.add_argument("--seeds", action="store_true", help="mean, standard deviation and maximum over the folders")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--readme",
        type=str | None,
        help="document whose `<!-- table FOLDER -->` and `<!-- study FOLDER -->` blocks are updated",
    )
    group = parser.add_argument_group("the evidence page of a run, or the comparison of several")
    group.add_argument("--html", type=str | None, help="write the page into this file, as HTML unless --format differs")
    kinds = Literal["html", "json", "markdown", "sarif", "junit"]
    group.add_argument("--format", type=kinds | None, help="form of the page; without --html it is printed")
    group.add_argument("--confidence", type=float, default=CONFIDENCE, help="of the page's intervals, such as 0.99")
    group.add_argument("--about", type=str | None, help="YAML file: responsible, intended_use, fallback, monitoring")
    options = parser.parse_args(arguments)
    _check_kind(options)
    if options.html or options.format:
        return _page(options)
    if not options.folders and options.readme is None:
        raise InputError("Nothing to report: name a folder with a summary.json, or a document with --readme.")
    return _tables(options)


def _check_kind(options: Any) -> None:
    """Refuse options of a table for a page, and the other way round: they would be ignored."""
    page = bool(options.html or options.format)
    if page and (given := next((name for name in TABLE_ALONE if options[name]), None)):
        raise InputError(
            f"--{given} belongs to a table, not to a page: leave it out, or leave out --html and --format."
        )
    if not page and (options.about or options.confidence != CONFIDENCE):
        raise InputError("--about and --confidence belong to a page: add --html FILE, or --format.")


def _tables(options: Any) -> int:
    from forefend.evaluation import results
    from forefend.report import tables
    from forefend.runtime import files, formatting

    paths = [Path(folder) for folder in options.folders or []]
    found = [results.load(_evaluation(path) if options.seeds else path) for path in paths]
    if options.cumulative:
        found = [tables.cumulative(one) for one in found]
    layout = tables.chosen_layout(options)
    if options.seeds:
        rows = tables.over_seeds(found)
        print(formatting.markdown_table(*rows) if options.markdown else formatting.text_table(*rows))
    for one in [] if options.seeds else found:
        print(one.to_markdown(layout) if options.markdown else one.to_text(layout))
    if options.readme:
        document = Path(options.readme)
        if not document.is_file():
            raise InputError(f"There is no document {document}: check its path.")
        from forefend.studies import output

        content = tables.renewed(document.read_text(encoding="utf-8"), document.parent)
        files.write(document, output.renewed(content, document.parent).encode())
    return 0


def _page(options: Any) -> int:
    """Make the evidence page of a run, or the page that compares several."""
    from forefend.report.evidence.output import written
    from forefend.report.evidence.page import evidence
    from forefend.report.run_comparison.page import comparison
    from forefend.runtime import files

    if not options.folders:
        raise InputError("No folder was given, expected that of a run, or of several to compare: name it.")
    if not 0.5 <= options.confidence <= MOST_CONFIDENT:
        raise InputError(f"--confidence is {options.confidence:.8g}, expected 0.5 to {MOST_CONFIDENT}, such as 0.95.")
    if options.html:
        _check_target(Path(options.html), options.folders)
    kind = options.format or "html"
    if len(options.folders) == 1:
        page = evidence(options.folders[0], confidence=options.confidence, about=options.about)
    else:
        _check_comparison(options, kind)
        page = comparison(options.folders, confidence=options.confidence)
    content = written(page, kind)
    if not options.html:
        sys.stdout.write(content)
        return 0
    files.write(Path(options.html), content.encode())
    print(f"{options.html}: {len(content.encode()) / 1e6:.2f} MB; grade: {page.grade}")
    return 0


def _check_comparison(options: Any, kind: str) -> None:
    if kind in ("sarif", "junit"):
        raise InputError(f"--format {kind} states the claims of one run: name one folder, or choose html.")
    if options.about:
        raise InputError("--about belongs to the page of one run: name one folder, or remove it.")


def _check_target(path: Path, folders: Sequence[str]) -> None:
    """Refuse to write a page over a folder, or over a file of the runs that it is about."""
    from forefend.report.evidence.reproduction import FILES, IN_EVALUATIONS
    from forefend.report.run_list import TRACES

    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a file for the page, such as {path / 'report.html'}.")
    names = {Path(name).name for name in (*TRACES, *FILES, *IN_EVALUATIONS, *OTHERS)}
    inside = any(Path(folder).resolve() in path.resolve().parents for folder in folders)
    if inside and path.exists() and (path.name in names or path.suffix in (".jsonl", ".safetensors")):
        raise InputError(f"{path} belongs to the run and would be lost: give the page another name.")


def _evaluation(folder: Path) -> Path:
    """The only evaluation of a run, else the folder itself."""
    inside = list(folder.glob("evaluations/*/summary.json"))
    return inside[0].parent if len(inside) == 1 and not (folder / "summary.json").exists() else folder
