"""The page that compares runs in a real browser, wide and narrow, in light and in dark mode."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import evidence_runs
from helpers.browser import OpenPage

from forefend.report.page.html import to_html
from forefend.report.run_comparison.page import comparison

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    first = evidence_runs.make(folder / "first")
    shutil.copytree(first, folder / "<b>second</b>".replace("/", "_"))
    path = folder / "page.html"
    path.write_text(to_html(comparison([first, folder / "<b>second<_b>"])), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_comparison_is_drawn_and_fits_the_window(open_page: OpenPage, address: str, width: int, scheme: str) -> None:
    page = open_page(address, width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    titles = page.locator("h2").all_inner_texts()
    assert titles[:4] == [
        "What differs",
        "What cannot be compared",
        "Robust against clean accuracy",
        "Accuracies side by side",
    ]
    assert page.locator("h1").inner_text() == "Runs compared: first, <b>second<_b>"
    assert page.locator("h1 b").count() == 0
    assert page.locator("svg").count() == 3  # three radii
    assert page.locator("svg").first.bounding_box()["height"] > 200
    assert "clean accuracy, %" in page.locator("svg").first.inner_html()
    assert page.locator("[role=img]").first.get_attribute("aria-label").startswith("Accuracies in percent. first, cnn:")
    rows = page.locator("#cells table").nth(1).locator("tbody tr")
    assert rows.count() == 2
    assert rows.nth(0).locator(".share").count() == 2


def test_page_of_evidence_and_comparison_have_one_style(open_page: OpenPage, address: str) -> None:
    page = open_page(address)
    assert page.locator("nav a").count() == 6
    assert Path(address.removeprefix("file://")).stat().st_size < 1_000_000
