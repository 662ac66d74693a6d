"""The page on which a picture is dropped: one file, which asks no other machine."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources

FILE = "page.html"


@cache
def page() -> str:
    """Return the page."""
    return resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")


def _digest(tag: str) -> str:
    content = re.search(rf"<{tag}>(.*?)</{tag}>", page(), re.DOTALL)
    digest = hashlib.sha256((content[1] if content else "").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_digest('script')}; style-src {_digest('style')}; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
