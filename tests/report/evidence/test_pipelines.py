"""SARIF 2.1.0 and JUnit XML: one result for each check and each headline accuracy, in the shape that readers expect."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from forefend.report.evidence.claims import claims
from forefend.report.evidence.junit import to_junit
from forefend.report.evidence.sarif import to_sarif
from forefend.report.page.blocks import Page

# Required properties and closed vocabularies of the SARIF 2.1.0 schema (OASIS, errata 01), for what is written.
KINDS = {"notApplicable", "pass", "fail", "review", "open", "informational"}
LEVELS = {"none", "note", "warning", "error"}


def test_sarif_has_the_shape_of_its_schema(full_page: Page) -> None:
    log = json.loads(to_sarif(full_page))
    assert set(log) == {"$schema", "version", "runs"}
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "forefend"
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(rules) == len(set(rules))
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    for result in run["results"]:
        assert set(result) <= {"ruleId", "kind", "level", "message", "locations"}
        assert result["ruleId"] in rules
        assert result["kind"] in KINDS
        assert result["level"] in LEVELS
        assert (result["kind"] == "fail") == (result["level"] != "none")  # section 3.27.10
        assert result["message"]["text"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert " " not in uri


def test_sarif_has_a_result_for_each_check_and_headline(full_page: Page) -> None:
    results = json.loads(to_sarif(full_page))["runs"][0]["results"]
    kinds = {result["ruleId"]: result["kind"] for result in results}
    assert kinds == {
        "the-records-agree": "pass",
        "robust-accuracy": "pass",
        "input-gradients-are-not-zero": "pass",
        "random-noise-does-not-beat-attacks": "fail",
        "bpda-does-not-beat-white-box-attacks": "notApplicable",
    }


def test_junit_counts_its_cases(full_page: Page) -> None:
    root = ElementTree.fromstring(to_junit(full_page))
    assert root.tag == "testsuites"
    counted = {"tests": 0, "failures": 0, "skipped": 0, "errors": 0}
    for suite in root:
        assert suite.tag == "testsuite"
        cases = list(suite)
        own = {"tests": len(cases), "errors": 0}
        own |= {"failures": len(suite.findall("testcase/failure")), "skipped": len(suite.findall("testcase/skipped"))}
        assert {name: int(suite.attrib[name]) for name in own} == own
        assert all(case.attrib.keys() == {"name", "classname", "time"} for case in cases)
        counted = {name: counted[name] + own[name] for name in counted}
    assert {name: int(root.attrib[name]) for name in counted} == counted
    assert counted == {"tests": 5, "failures": 1, "skipped": 1, "errors": 0}


def test_records_that_disagree_fail_every_headline(full_page: Page) -> None:
    data: dict[str, Any] = dict(full_page.data or {}) | {"faults": ["a line was edited"]}
    doubted = replace(full_page, data=data)
    assert {claim.status for claim in claims(doubted) if claim.group in ("records", "robust accuracy")} == {"failed"}
    assert "a line was edited" in to_junit(doubted)


def test_characters_that_xml_cannot_hold_are_replaced(full_page: Page) -> None:
    data: dict[str, Any] = dict(full_page.data or {}) | {"faults": ["\x00\ud800 <&"]}
    root = ElementTree.fromstring(to_junit(replace(full_page, data=data)))
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.attrib["message"] == "?? <&"
