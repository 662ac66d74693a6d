"""The claims of an evidence page as JUnit XML, which build servers show."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from forefend.evaluation.gradient_masking.check_report import FAILED, SKIPPED
from forefend.report.evidence.claims import Claim, claims
from forefend.report.page.blocks import Page


def to_junit(page: Page) -> str:
    """Return one test case for each claim, and a suite for each group."""
    found = claims(page)
    root = ElementTree.Element("testsuites", {"name": _clean(page.title)} | _counts(found))
    for group in dict.fromkeys(claim.group for claim in found):
        own = [claim for claim in found if claim.group == group]
        suite = ElementTree.SubElement(root, "testsuite", {"name": _clean(group)} | _counts(own))
        for claim in own:
            case = ElementTree.SubElement(suite, "testcase", name=_clean(claim.name), classname=_clean(group), time="0")
            kind = {FAILED: "failure", SKIPPED: "skipped"}.get(claim.status)
            if kind:
                ElementTree.SubElement(case, kind, message=_clean(claim.text))
            else:
                ElementTree.SubElement(case, "system-out").text = _clean(claim.text)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _counts(found: list[Claim]) -> dict[str, str]:
    count = {status: str(sum(claim.status == status for claim in found)) for status in (FAILED, SKIPPED)}
    return {"tests": str(len(found)), "failures": count[FAILED], "skipped": count[SKIPPED], "errors": "0"}


def _clean(text: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
