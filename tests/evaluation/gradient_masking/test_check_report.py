"""The report of the gradient-masking checks as text, JSON and file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from forefend.evaluation.gradient_masking.check_report import CheckReport, CheckResult, reports_in

PASSED = CheckResult("a", "1 of 9", "at most 2", "passed", "nothing")
FAILED = CheckResult("b", "3 of 9", "at most 2", "failed", "use BPDA")
SKIPPED = CheckResult("c", "not run", "at most 2", "skipped", "nothing")


def test_report_prints_failed_checks_first() -> None:
    text = str(CheckReport([PASSED, SKIPPED, FAILED, PASSED], model="cnn"))
    assert text.splitlines()[0] == "cnn: 1 of 4 checks FAILED, 1 skipped"
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ") and line[2] != " "] == [
        "FAIL",
        "skip",
        "ok",
        "ok",
    ]
    assert "what to do: use BPDA" in text
    assert "what to do: nothing" not in text


def test_report_passed_requires_every_check() -> None:
    assert CheckReport([PASSED, PASSED]).passed
    assert str(CheckReport([PASSED])).startswith("classifier: passed")
    assert not CheckReport([PASSED, FAILED]).passed


def test_report_skipped_check_neither_passes_nor_fails() -> None:
    assert not SKIPPED.passed
    assert not SKIPPED.failed
    assert CheckReport([PASSED, SKIPPED]).passed
    assert str(CheckReport([PASSED, SKIPPED])).startswith("classifier: passed, 1 skipped")


def test_report_names_what_was_checked_and_reports_without_it_are_read(tmp_path: Path) -> None:
    CheckReport([PASSED], "cnn", defense="a:1", network="b:2").save(tmp_path / "check.json")
    (found,) = reports_in(tmp_path / "check.json")
    assert (found.defense, found.network) == ("a:1", "b:2")
    held = {key: value for key, value in found.to_json().items() if key not in ("defense", "network")}
    (tmp_path / "check.json").write_text(json.dumps({"format": 1, "reports": {"cnn": held}}))
    (found,) = reports_in(tmp_path / "check.json")
    assert (found.model, found.defense, found.network) == ("cnn", "", "")


def test_saved_reports_of_two_models_are_both_kept(tmp_path: Path) -> None:
    first = CheckReport([PASSED], model="cnn", threat="Linf:0.1", images=9)
    first.save(tmp_path / "check.json")
    CheckReport([FAILED], model="vgg").save(tmp_path / "check.json")
    content = json.loads((tmp_path / "check.json").read_text())
    assert content["format"] == 1
    assert list(content["reports"]) == ["cnn", "vgg"]
    assert content["reports"]["cnn"] == first.to_json() | {"checks": [asdict(PASSED)]}
    assert content["reports"]["vgg"]["passed"] is False
