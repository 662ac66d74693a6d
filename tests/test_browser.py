"""The fixture of the browser tests notices what it must."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.browser import Watched

pytestmark = pytest.mark.browser


def test_quiet_page_has_no_problem(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<link rel=icon href=data:,><title>quiet</title><p>text</p>")
    page = watched.open(f"file://{tmp_path}/page.html", width=360)
    assert (page.title(), page.viewport_size["width"], watched.problems) == ("quiet", 360, [])


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<script>throw new Error('thrown')</script>", "error: thrown"),
        ("<img src='http://example.org/pixel.png'>", "request: http://example.org/pixel.png"),
    ],
)
def test_problem_of_a_page_is_noticed(watched: Watched, tmp_path: Path, body: str, problem: str) -> None:
    (tmp_path / "page.html").write_text(f"<link rel=icon href=data:,>{body}")
    watched.open(f"file://{tmp_path}/page.html").wait_for_load_state("load")
    assert any(found.startswith(problem) for found in watched.problems)
