"""The evidence page in a real browser: no console error, no request elsewhere, everything is drawn and readable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.browser import OpenPage

from forefend.report.page.blocks import Page
from forefend.report.page.html import to_html

pytestmark = pytest.mark.browser
SIZES = [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")]
# The least contrast of a text with what is painted behind it, over the texts outside drawings; WCAG 2.1, AA.
CONTRAST = """() => {
  const channels = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const luminance = c => c.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  let least = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || e.closest('svg, .skip')) continue;
    const [a, b] = [luminance(channels(getComputedStyle(e).color)), luminance(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, walker.currentNode.data.trim()];
  }
  return least;
}"""
DRAWN = """() => [...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  return [box.width, box.height, svg.querySelectorAll('text').length,
          getComputedStyle(svg.querySelector('text')).fontSize, svg.querySelectorAll('path').length];
})"""


@pytest.fixture(scope="module")
def address(full_page: Page, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(full_page, tmp_path_factory.mktemp("page") / "full.html")


def written(page: Page, path: Path) -> str:
    path.write_text(to_html(page), encoding="utf-8")
    return path.as_uri()


def test_every_section_is_there_and_in_the_list(open_page: OpenPage, address: str, full_page: Page) -> None:
    page = open_page(address)
    shown = [page.locator(f"#{section.id} h2").inner_text() for section in full_page.sections]
    assert shown == [section.title for section in full_page.sections]
    for section in full_page.sections:
        assert page.locator(f'nav a[href="#{section.id}"]').count() == 1
    assert page.locator("h1").count() == 1


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_page_is_readable(open_page: OpenPage, address: str, width: int, scheme: str) -> None:
    """Nothing is wider than the window but what scrolls inside itself, and contrast is that of WCAG AA."""
    page = open_page(address, width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ratio, text = page.evaluate(CONTRAST)
    assert ratio >= 4.5, text
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(247, 248, 250)"
    assert dark == (scheme == "dark")


def test_heat_map_curve_and_pictures_are_drawn(open_page: OpenPage, address: str) -> None:
    page = open_page(address)
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == 3
    for width, height, texts, _, paths in drawn:
        assert width > 400
        assert height > 100
        assert texts > 5
        assert paths > 5
    heat = page.locator("#transfer svg")
    assert heat.count() == 1
    assert page.locator("#transfer .drawing").get_attribute("aria-label")
    sizes = page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt.length])")
    assert len(sizes) == 12
    assert all(complete and natural == 6 and alt > 5 for complete, natural, alt in sizes)


def test_tables_scroll_inside_themselves_on_a_phone(open_page: OpenPage, address: str) -> None:
    page = open_page(address, width=360)
    wide = page.evaluate("[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length")
    assert wide > 3
    focusable = page.evaluate("[...document.querySelectorAll('.scroll[role=region]')].every(e => e.tabIndex === 0)")
    assert focusable


def test_page_of_a_run_without_check_says_so(open_page: OpenPage, bare_page: Page, tmp_path: Path) -> None:
    page = open_page(written(bare_page, tmp_path / "bare.html"))
    assert "not run" in page.locator(".tile", has_text="Gradient-masking checks").inner_text()
    assert page.locator("#checks .notice pre").inner_text().startswith("forefend check ")


def test_page_prints_without_navigation(open_page: OpenPage, address: str) -> None:
    page: Any = open_page(address)
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator("#verdict").is_visible()
