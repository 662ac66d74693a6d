"""The evidence page in each of its forms."""

from __future__ import annotations

import json
from collections.abc import Callable

from forefend.checks import choose
from forefend.report.evidence.junit import to_junit
from forefend.report.evidence.sarif import to_sarif
from forefend.report.page.blocks import Page, to_json
from forefend.report.page.html import to_html
from forefend.report.page.markdown import to_markdown


def written(page: Page, form: str) -> str:
    """Return the page as text.

    Args:
        page: what `evidence` made.
        form: `html`, `json`, `markdown`, `sarif` or `junit`.

    Raises:
        InputError: an unknown form, or jinja2 is not installed for HTML.
    """
    return choose(form, FORMS, "form of the page")(page)


def _json(page: Page) -> str:
    return json.dumps(to_json(page), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


FORMS: dict[str, Callable[[Page], str]] = {
    "html": to_html,
    "json": _json,
    "markdown": to_markdown,
    "sarif": to_sarif,
    "junit": to_junit,
}
