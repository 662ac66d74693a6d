"""A page as one HTML file: no script, no font and no image from elsewhere."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from forefend.checks import import_extra
from forefend.report.page.blocks import GRADES, Page


def to_html(page: Page, template: str = "page.html") -> str:
    """Return a page as HTML; every text of it is escaped.

    Args:
        page: the page.
        template: a file of `templates/`, which extends `page.html`.

    Raises:
        InputError: jinja2 is not installed.
    """
    return str(_environment().get_template(template).render(page=page, grades=GRADES))


@cache
def _environment() -> Any:
    jinja2 = import_extra("jinja2", "An HTML page", "report")
    loader = jinja2.PackageLoader("forefend.report.page", "templates")
    found = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value.replace(" %", "\u00a0%") if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["kind"] = lambda block: type(block).__name__.lower()
    found.filters["data_url"] = lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return found
