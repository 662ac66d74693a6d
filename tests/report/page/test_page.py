"""A page as HTML, Markdown and JSON: every text is escaped, drawings follow the page's colors."""

from __future__ import annotations

import json
import re

import pytest

from forefend.report.page import charts
from forefend.report.page.blocks import (
    Commands,
    Facts,
    Figure,
    Gallery,
    Link,
    Mark,
    Notice,
    Page,
    Picture,
    Section,
    Share,
    Table,
    Text,
    Tile,
    Verdict,
    to_json,
    worst,
)
from forefend.report.page.html import to_html
from forefend.report.page.markdown import to_markdown

HOSTILE = '<script>alert(1)</script> | "x" \' & $\\frac'


def page_of(text: str) -> Page:
    blocks = [
        Text(text),
        Notice("missing", text, text),
        Table([text], [[text], [Mark("failed", text)], [Link(text, "https://example.org")]], text),
        Facts([(text, text)]),
        Verdict(text, text, [Tile(text, text, text)]),
        Figure(text, text, charts.curves({text: [(0, 1, 1, 1), (1, 0.5, 0.4, 0.6)]}, text, text), text),
        Figure(text, text, charts.heat_map([text], [text], {(0, 0): 0.5}, [(0, 0)])),
        Figure(text, text, charts.bars([text], {text: [0.5]}, text)),
        Gallery([text], [([Picture(b"png", text)], text)], text),
        Commands([text]),
    ]
    return Page(text, text, [Section("a", text, blocks, "partial", text)], text, {"more": 1})


def test_every_text_of_a_page_is_escaped() -> None:
    html = to_html(page_of(HOSTILE))
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)") > 25
    assert 'alt="<' not in html


def test_page_names_no_address_elsewhere_but_in_links() -> None:
    html = to_html(page_of("plain"))
    addresses = re.findall(r'(?:src|href|url\()\s*=?\s*"?([^"\s>)]+)', html)
    assert {address for address in addresses if "//" in address} == {"https://example.org"}


def test_drawing_has_the_colors_of_the_page_and_texts_as_text() -> None:
    drawn = charts.curves({"cnn": [(0, 0.5, 0.4, 0.6)]}, "radius", "accuracy")
    assert "var(--series-0)" in drawn
    assert "var(--soft)" in drawn
    assert "#0100" not in drawn
    assert ">radius</text>" in drawn


def test_two_drawings_of_one_content_are_equal() -> None:
    first, second = (charts.heat_map(["a"], ["b"], {(0, 0): 0.25}, []) for _ in range(2))
    assert first == second
    assert ">25</text>" in first


@pytest.mark.parametrize("share", [number / 50 for number in range(51)])
def test_number_of_a_heat_map_is_readable(share: float) -> None:
    dark, light = sorted(charts.luminance(bytes.fromhex(color[1:])) for color in charts.shade(share))
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.1, AA


def test_luminance_is_that_of_wcag() -> None:
    assert charts.luminance((255, 255, 255)) == pytest.approx(1)
    assert charts.luminance((0, 0, 0)) == 0
    assert charts.luminance((255, 0, 0)) == pytest.approx(0.2126)


def test_markdown_escapes_what_would_end_a_cell() -> None:
    text = to_markdown(page_of("a|b <i>"))
    assert "a\\|b &lt;i&gt;" in text
    assert "<i>" not in text.replace("`a|b <i>`", "").replace("```\na|b <i>\n```", "")


def test_json_holds_numbers_and_no_drawing() -> None:
    page = Page(
        "t", "s", [Section("a", "A", [Table(["x"], [[Share(0.5, 0.4, 0.6, 10)]])], "missing")], data={"more": 1}
    )
    held = json.loads(json.dumps(to_json(page)))
    assert held["grade"] == "missing"
    assert held["more"] == 1
    assert held["sections"][0]["blocks"][0]["rows"][0][0]["value"] == 0.5
    assert "svg" not in json.dumps(to_json(page_of("x")))


@pytest.mark.parametrize(
    ("grades", "expected"),
    [(["complete", "failed", "missing"], "failed"), (["partial", "complete"], "partial"), (["", ""], "complete")],
)
def test_grades_aggregate_by_the_worst(grades: list[str], expected: str) -> None:
    assert worst(grades) == expected
