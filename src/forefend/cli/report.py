"""`forefend report`: tables of saved results."""

from __future__ import annotations

from pathlib import Path

from forefend.checks import InputError
from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Print the table of each folder, or update the tables of a document."""
    parser = Parser("report", "Print the table of an evaluation, from its summary.")
    parser.add_argument("folders", nargs="*", type=str, help="folders with a summary.json")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--readme", type=str | None, help="document whose `<!-- table FOLDER -->` blocks are updated")
    options = parser.parse_args(arguments)
    if not options.folders and options.readme is None:
        raise InputError("Nothing to report: name a folder with a summary.json, or a document with --readme.")
    from forefend.evaluation import results
    from forefend.report import tables
    from forefend.runtime import files

    for folder in options.folders or []:
        found = results.load(Path(folder))
        print(found.to_markdown() if options.markdown else found)
    if options.readme:
        document = Path(options.readme)
        if not document.is_file():
            raise InputError(f"There is no document {document}: check its path.")
        files.write(document, tables.renewed(document.read_text(encoding="utf-8"), document.parent).encode())
    return 0
