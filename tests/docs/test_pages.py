"""Every page of the repository: its links lead to files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "reference" not in page.parts)
PAGES = [*ROOT.glob("*.md"), *GUIDES, *sorted((ROOT / "results").rglob("README.md"))]


def name_of(page: Path) -> str:
    """The path of a page in the repository."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not re.match("https?:", link) and not (page.parent / link).exists()] == []
