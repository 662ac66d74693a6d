"""The page on which a picture is dropped, in a browser and in its bytes."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from helpers.browser import OpenPage, Watched
from helpers.serving import client, encoded, saved, service, toy_pipeline
from PIL import Image

from forefend.serving.app import Service, application
from forefend.serving.server import listening

DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.getElementById("drop").dispatchEvent(
      new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@contextmanager
def served(made: Service) -> Iterator[str]:
    """The address of a service in a thread of this process."""
    with listening("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(application(made), log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, args=([sock],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


def test_page_names_no_other_machine_and_allows_none() -> None:
    with client() as server:
        answer = server.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+[^'\" ]*", answer.text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name of XML, which nothing fetches
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


@pytest.mark.browser
@pytest.mark.parametrize(("width", "color_scheme"), [(1280, "light"), (360, "dark")])
def test_dropped_picture_is_shown_with_both_predictions(
    open_page: OpenPage, tmp_path: Path, width: int, color_scheme: str
) -> None:
    names = ("zero", "one", "two", "a class with quite a long name that needs several lines")
    with served(service(toy_pipeline(classes=names))) as address:
        page = open_page(address, width=width, color_scheme=color_scheme)
        page.wait_for_selector("#title:text('toy')")  # a function would be refused by the page's security policy
        assert not page.is_visible("#result")
        picture = encoded(torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(3)))
        page.evaluate(DROP, ["mine.png", base64.b64encode(picture).decode()])
        page.wait_for_selector("#result:visible")
        for name in ("input", "processed", "difference"):
            assert page.evaluate(f"document.getElementById('{name}').naturalWidth") == 6
        for panel in ("#bare", "#defended"):
            shown = page.inner_text(panel)
            assert all(word in shown for word in names)
            shares = [float(number) for number in re.findall(r"([\d.]+) %", shown)]
            assert sum(shares[1:]) == pytest.approx(100, abs=0.3)  # the first is the largest again
        assert "mine.png" in page.inner_text("#status")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        check_contrast(page)
        page.screenshot(path=tmp_path / f"page-{width}.png", full_page=True)


@pytest.mark.browser
def test_accuracies_are_told_apart_by_what_they_were_measured_on(open_page: OpenPage) -> None:
    made = service()
    kinds = {"served": 91.0, "other": 82.0, "unidentified": 73.0}
    found = [{"name": f"toy, {of}", "percent": n, "interval": None, "of": of} for of, n in kinds.items()]
    for held, warned in ((found, False), (found[1:], True)):
        info = {**made.info, "measured": [{"data": "toy/test", "accuracies": held}]}
        with served(replace(made, info=info)) as address:
            page = open_page(address, width=800)
            page.click("summary")
            shown = page.inner_text("#measured")
            order = [shown.index(f"{kinds[one['of']]:.1f} %") for one in held]
            assert order == sorted(order)
            assert ("Measured on exactly this classifier" in shown) != warned
            assert shown.index("Measured on other classifiers") < shown.index("82.0 %")
            assert shown.index("Classifier not identified") < shown.index("73.0 %")
            assert ("No accuracy here is known to be of exactly this classifier" in shown) == warned


@pytest.mark.browser
def test_picture_is_chosen_by_the_keyboard_and_a_wrong_one_is_explained(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(saved(Image.new("L", (7, 7))))
    (tmp_path / "good.png").write_bytes(encoded(torch.zeros(1, 6, 6)))
    with served(service(toy_pipeline(alone=False))) as address:
        page = watched.open(address)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        page.set_input_files("#file", tmp_path / "good.png")
        page.wait_for_selector("#result:visible")
        assert "not used alone" in page.inner_text("#bare")
        page.click("summary")
        assert "Nothing is known here" in page.inner_text("#measured")
        page.set_input_files("#file", tmp_path / "large.png")
        page.wait_for_selector("#status.bad")
        assert "Image 1 is 1 × 7 × 7" in page.inner_text("#status")
        assert not page.is_visible("#result")
    assert all("status of 422" in problem for problem in watched.problems)  # the browser's own line


def check_contrast(page: Any) -> None:
    """Text and ground differ by the 4.5 of WCAG AA."""
    found = page.evaluate(
        """() => ["--ink", "--soft", "--accent", "--bad"].flatMap(name => ["--ground", "--sheet"].map(ground => {
          const style = getComputedStyle(document.documentElement);
          return [style.getPropertyValue(name).trim(), style.getPropertyValue(ground).trim()];
        }))"""
    )
    for text, ground in found:
        light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
