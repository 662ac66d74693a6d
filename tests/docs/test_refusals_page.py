"""The page of refusals quotes sentences that the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/refusals.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?!refused|-).* \| `([^|]+)` \|$", PAGE, re.M)


def texts() -> str:
    """The text of every string of the package, with its parts joined."""
    found = []
    for path in (ROOT / "src/forefend").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


SAID = texts()


def test_every_row_of_the_page_quotes_a_sentence() -> None:
    assert len(ROWS) == len(re.findall(r"^\| (?!refused)", PAGE, re.M)) > 40


@pytest.mark.parametrize("words", ROWS)
def test_quoted_refusal_is_in_the_code(words: str) -> None:
    assert words in SAID
