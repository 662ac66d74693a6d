"""Documents with tables that are generated from records."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation.statistics import wilson
from forefend.runtime import files


def accuracy(misclassified: int, n: int) -> str:
    """Format robust accuracy in % with its 95% Wilson interval."""
    low, high = wilson(n - misclassified, n)
    # Not `percent`: 100 * (k / n) rounds some halves to another digit than 100 * k / n in the committed tables.
    return f"{100 * (n - misclassified) / n:.1f} [{100 * low:.1f}–{100 * high:.1f}]"


def filled(document: str, blocks: Mapping[str, str]) -> str:
    """Return the document with each block between `<!-- NAME -->` and `<!-- end -->` replaced.

    Args:
        document: Markdown.
        blocks: the content by name, with or without a line break at its end.

    Raises:
        InputError: there is not exactly one place for a block.
    """
    for name, content in blocks.items():
        made = "\n".join([f"<!-- {name} -->", content.removesuffix("\n"), "<!-- end -->"])
        document, count = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: made, document, flags=re.DOTALL)  # noqa: B023
        if count != 1:
            raise InputError(f"The page has {count} places for the block {name!r}, expected one: restore it.")
    return document


def renew(page: Path, blocks: Mapping[str, str], *, check: bool) -> bool:
    """Update the blocks of a page, unless `check`; return whether it contained them already."""
    old = page.read_text(encoding="utf-8")
    new = filled(old, blocks)
    if not check:
        files.write(page, new.encode())
    elif new != old:
        print(f"The tables of {page} differ from its records: run this without --check.", file=sys.stderr)
    return new == old


def main_of(text: str | None, root: Path, blocks: Callable[[Path], Mapping[str, str]]) -> int:
    """Update or check the page in a folder of results, as the command line says, and return the exit status.

    Args:
        text: what the command does, for `--help`.
        root: the folder with the records and `README.md`.
        blocks: from the folder to the tables by name.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=Path, default=root)
    given = parser.parse_args()
    current = renew(given.root / "README.md", blocks(given.root), check=given.check)
    return int(given.check and not current)
