"""Pages in a headless Chromium; a console error or a request to another machine fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
LOCAL_SCHEMES = ("about", "blob", "data", "file")

OpenPage = Callable[..., Any]  # (address, width=1280, height=900, color_scheme="light") -> playwright's Page


def is_local(address: str) -> bool:
    """Return whether a request for `address` stays on this machine."""
    parts = urlsplit(address)
    return parts.scheme in LOCAL_SCHEMES or parts.hostname == "127.0.0.1"


class Watched:
    """Pages of one browser, and what went wrong on them."""

    def __init__(self, browser: Any) -> None:
        self.browser, self.contexts, self.problems = browser, list[Any](), list[str]()

    def open(self, address: str, *, width: int = 1280, height: int = 900, color_scheme: str = "light") -> Any:
        """Open an address in a new window of this size, and return playwright's page."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=color_scheme, service_workers="block"
        )
        self.contexts.append(context)
        context.route(lambda requested: not is_local(requested), self._refuse)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.goto(address)
        return page

    def close(self) -> None:
        """Close all windows."""
        for context in self.contexts:
            context.close()

    def _refuse(self, route: Any) -> None:
        self.problems.append(f"request: {route.request.url}")
        route.abort()

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"console: {message.text}")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Return playwright's browser; FOREFEND_BROWSER names another binary than the first of `NAMES`."""
    binary = os.environ.get("FOREFEND_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if not binary:
        pytest.skip(f"no browser: install chromium, or set FOREFEND_BROWSER (none of {', '.join(NAMES)} is installed)")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    """Return pages whose problems a test reads itself."""
    pages = Watched(chromium)
    yield pages
    pages.close()


@pytest.fixture
def open_page(watched: Watched) -> Iterator[OpenPage]:
    """Return a function that opens an address; the test fails if a page reports a problem."""
    yield watched.open
    assert watched.problems == []
