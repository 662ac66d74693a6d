"""`forefend report`: tables of saved results."""

from __future__ import annotations

from pathlib import Path

from forefend.checks import InputError
from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Print the table of each folder, or update the tables of a document."""
    parser = Parser("report", "Print the table of an evaluation, from its summary.")
    parser.add_argument("folders", nargs="*", type=str, help="folders with a summary.json")
    parser.add_table()
    parser.add_argument("--seeds", action="store_true", help="mean, standard deviation and maximum over the folders")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "--readme",
        type=str | None,
        help="document whose `<!-- table FOLDER -->` and `<!-- study FOLDER -->` blocks are updated",
    )
    options = parser.parse_args(arguments)
    if not options.folders and options.readme is None:
        raise InputError("Nothing to report: name a folder with a summary.json, or a document with --readme.")
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


def _evaluation(folder: Path) -> Path:
    """The only evaluation of a run, else the folder itself."""
    inside = list(folder.glob("evaluations/*/summary.json"))
    return inside[0].parent if len(inside) == 1 and not (folder / "summary.json").exists() else folder
