"""Records that were edited, or that do not agree, are told at the top of the page; hostile names are escaped."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from helpers import evidence_runs
from torch import nn

from forefend.evaluation.results import load
from forefend.report.evidence.output import written
from forefend.report.evidence.page import evidence
from forefend.report.page.html import to_html
from forefend.runtime.files import content_digest

FIRST = "Do not rely on this page before this is explained."


class Elements(HTMLParser):
    """The tags, the names of attributes and the sources of images of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.sources = set[str](), set[str](), set[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources |= {value or "" for name, value in attrs if name == "src"}


def faults(run: Path) -> str:
    """The faults of a page; they stand first in its verdict, and its grade is failed."""
    page = evidence(run)
    found = dict(page.data or {})["faults"]
    assert found
    assert page.grade == "failed"
    assert to_html(page).count(FIRST) == len(found)
    return " ".join(found)


def edit(path: Path, number: int, change: Callable[[dict[str, Any]], None], *, sealed: bool = False) -> None:
    """Change a line of records; `sealed` makes its digest fit again."""
    lines = path.read_text().splitlines()
    content = json.loads(lines[number])
    change(content)
    if sealed:
        content.pop("digest")
        content["digest"] = content_digest(content)
    lines[number] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n")


def test_untouched_run_has_no_fault(bare: Path, full: Path) -> None:
    assert dict(evidence(bare).data or {})["faults"] == []
    assert dict(evidence(full).data or {})["faults"] == []


def test_edited_line_is_told(run: Path) -> None:
    edit(run / "records.jsonl", 0, lambda line: line["misclassified"].__setitem__(0, True))
    assert "line 1 (it was edited or damaged after it was written)" in faults(run)


def test_line_that_is_no_json_is_told(run: Path) -> None:
    with (run / "records.jsonl").open("a") as file:
        file.write("{broken\n")
    assert "it is not a record" in faults(run)


def test_line_of_another_seed_is_told_and_not_counted(run: Path) -> None:
    edit(run / "records.jsonl", 1, lambda line: line.update(seed=7), sealed=True)
    told = faults(run)
    assert "lines of seed 7, not 0" in told
    assert "has no record of" in told


def test_edited_summary_is_told_and_the_records_are_shown(run: Path) -> None:
    held = json.loads((run / "summary.json").read_text())
    before = {(r.attack, r.radius): r.accuracy for r in load(run) if r.defended}
    for row in held["results"]:
        row.update(accuracy=1.0, high=1.0)
    (run / "summary.json").write_text(json.dumps(held))
    assert "summary.json was edited or damaged (its digest differs)" in faults(run)
    robust = dict(evidence(run).data or {})["headlines"][0]["robust"]["value"]
    assert robust == before["worst", 0.2]


def test_summary_sealed_again_differs_from_the_records(run: Path) -> None:
    held = json.loads((run / "summary.json").read_text())
    for row in held["results"]:
        row.update(accuracy=1.0, high=1.0)
    held["digest"] = content_digest(held["results"])
    (run / "summary.json").write_text(json.dumps(held))
    assert "summary.json says 100.0 % for cnn under PGD-3, and the records" in faults(run)


def test_summary_without_records_is_told(run: Path) -> None:
    (run / "records.jsonl").unlink()
    assert "has no record of 40 of 40 images" in faults(run)


def test_numbers_of_a_summary_alone_are_told(run: Path) -> None:
    (run / "evaluation.json").unlink()
    assert "These numbers are read from a summary: " in to_html(evidence(run))


def test_evaluation_of_another_defense_is_told(run: Path) -> None:
    """Its classifiers have the fingerprints of the training, so that the defense alone tells."""
    other = evidence_runs.defense()
    nn.init.constant_(next(other.parameters()), 0.01)
    other.save(run)
    told = faults(run)
    assert f"measured another defense ({evidence_runs.defense().identity()})" in told
    assert f"than that of this run ({other.identity()})" in told


def test_check_of_another_defense_is_told_and_not_shown(full: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    path, own = run / "check/check.json", evidence_runs.defense().identity()
    assert dict(evidence(run).data or {})["checks"]
    path.write_text(path.read_text().replace(own, "other:1"))
    assert f"The check of cnn in {run} is of another defense (other:1) than that of this run ({own})." in faults(run)
    data = dict(evidence(run).data or {})
    assert data["checks"] == []
    assert "gradient masking" in [gap["what"] for gap in data["not_tested"]]


def test_check_that_names_no_defense_is_shown_and_says_so(full: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    path, said = run / "check/check.json", "The report does not name the defense that was checked"
    assert said not in to_html(evidence(run))
    held = json.loads(path.read_text())
    del held["reports"]["cnn"]["defense"], held["reports"]["cnn"]["network"]
    path.write_text(json.dumps(held))
    assert said in to_html(evidence(run))
    assert dict(evidence(run).data or {})["faults"] == []


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x08\0\0\0\0\0\0\0{}      "])
def test_weights_that_are_not_those_of_the_card_are_told(run: Path, content: bytes) -> None:
    (run / "weights.safetensors").write_bytes(content)
    assert "other weights than its card was written for" in faults(run)
    card = json.loads((run / "defense.json").read_text())
    (run / "defense.json").write_text(json.dumps({k: v for k, v in card.items() if k != "digests"}))
    assert "weights.safetensors" in faults(run) or "another defense" in faults(run)


def test_damaged_files_are_named_and_the_page_is_made(full: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    for name in ("check/check.json", "transfer/toy/transfer.json", "latency.json", "config.json", "defense.json"):
        (run / name).write_text('{"format": 1, "x": [')
    told = faults(run)
    for name in ("check.json", "transfer.json", "latency.json", "config.json", "defense.json"):
        assert name in told


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("latency.json", '{"models": [{"name": "a", "milliseconds": {"1": "fast"}}]}'),
        ("latency.json", '{"models": 3}'),
        ("defense.json", '{"architecture": "dncnn", "guides": [{"name": 3}]}'),
        ("config.json", '{"config": [1]}'),
        ("train.jsonl", "[]"),
        ("check/check.json", '{"reports": {"cnn": {"checks": [{"check": 1}]}}}'),
    ],
)
def test_values_of_other_types_do_not_stop_the_page(run: Path, name: str, content: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    assert "Evidence" in to_html(evidence(run))


@pytest.mark.parametrize("content", ["[]", '{"models": 3}', '{"models": {}, "about": 3}', "null", '"x"'])
def test_manifest_of_another_shape_does_not_stop_the_page(run: Path, content: str) -> None:
    (run / "evaluation.json").write_text(content)
    assert "Evidence" in to_html(evidence(run))


def test_nan_in_a_transfer_matrix_is_told(full: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    path = run / "transfer/toy/transfer.json"
    path.write_text(path.read_text().replace('"accuracy": 0.75', '"accuracy": NaN'))
    assert "holds no transfer matrix" in faults(run)


def test_nan_in_a_record_is_no_number_of_the_page(run: Path) -> None:
    edit(run / "records.jsonl", -1, lambda line: line.update(moved=[[float("nan")] * 3] * 3), sealed=True)
    page = evidence(run)
    json.loads(written(page, "json"), parse_constant=pytest.fail)


def test_names_of_a_hostile_run_are_escaped(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "quoted" & <b>'
    names = ("<script>alert(1)</script>", "a|b", "$\\frac{", "\" onload='x'")
    run = evidence_runs.make(folder, names)
    config = json.loads((run / "config.json").read_text())
    config["config"]["recipe"] = "<img src=x onerror=alert(2)>"
    (run / "config.json").write_text(json.dumps(config))
    page = evidence(run)
    html = to_html(page)
    parsed = Elements(html)
    assert "script" not in parsed.tags
    assert not [name for name in parsed.attributes if name.startswith("on")]
    assert not [source for source in parsed.sources if not source.startswith("data:image/png;base64,")]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    for form in ("json", "markdown", "sarif", "junit"):
        assert written(page, form)
    assert "<script>" not in written(page, "markdown")


def test_20_megabytes_of_records_give_a_small_page_quickly(run: Path) -> None:
    """The records of 2,000 more trials, which the evaluation does not count, are read and checked."""
    path = run / "records.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    line.pop("digest")
    line |= {"index": list(range(500)), "misclassified": [False] * 500, "predicted": []}
    line["images"] = [f"{number:032x}" for number in range(500)]
    with path.open("a") as file:
        for trial in range(900):
            content = line | {"trial": f"PGD-{trial}"}
            file.write(json.dumps(content | {"digest": content_digest(content)}) + "\n")
    assert path.stat().st_size > 20e6
    started = time.process_time()
    html = to_html(evidence(run))
    assert time.process_time() - started < 10
    assert len(html.encode()) < 3e6
