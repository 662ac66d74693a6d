"""Pages: documents in which what stands between two marks is made anew from records."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation.statistics import wilson
from forefend.runtime import files


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, a line break at its end."""
    return "".join("| " + " | ".join(row) + " |\n" for row in [heading, ["---"] * len(heading), *rows])


def accuracy(lost: int, n: int) -> str:
    """Robust accuracy in % with its 95% Wilson interval."""
    low, high = wilson(n - lost, n)
    return f"{100 * (n - lost) / n:.1f} [{100 * low:.1f}–{100 * high:.1f}]"


def filled(document: str, blocks: Mapping[str, str]) -> str:
    """The document with each block between `<!-- NAME -->` and `<!-- end -->` replaced.

    Args:
        document: Markdown.
        blocks: what comes in, by name, each with a line break at its end.

    Raises:
        InputError: there is not exactly one place for a block.
    """
    for name, content in blocks.items():
        made = f"<!-- {name} -->\n{content}<!-- end -->"
        document, count = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: made, document, flags=re.DOTALL)  # noqa: B023
        if count != 1:
            raise InputError(f"The page has {count} places for the block {name!r}, expected one: restore it.")
    return document


def renew(page: Path, blocks: Mapping[str, str], *, check: bool) -> bool:
    """Write the page with its blocks replaced, or with `check` only look; whether it held them already."""
    old = page.read_text(encoding="utf-8")
    new = filled(old, blocks)
    if not check:
        files.write(page, new.encode())
    elif new != old:
        print(f"The tables of {page} are not those of its records: run this without --check.", file=sys.stderr)
    return new == old
