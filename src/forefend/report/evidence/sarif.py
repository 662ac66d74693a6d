"""The claims of an evidence page as SARIF 2.1.0, which code hosts show."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from forefend.evaluation.gradient_masking.check_report import FAILED, PASSED
from forefend.report.evidence.claims import Claim, claims
from forefend.report.page.blocks import Page
from forefend.runtime.files import provenance

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
ADDRESS = "https://arxiv.org/abs/2106.09947"  # Indicators of Attack Failure


def to_sarif(page: Page) -> str:
    """Return one result for each claim: an error where it failed, a note where it was skipped."""
    found = claims(page)
    rules = {_rule(claim): claim for claim in found}
    driver = {
        "name": "forefend",
        "version": provenance()["versions"]["forefend"],
        "rules": [
            {"id": rule, "shortDescription": {"text": _title(claim)}, "helpUri": ADDRESS}
            for rule, claim in rules.items()
        ],
    }
    results = [_result(claim, str(dict(page.data or {}).get("run", ""))) for claim in found]
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _result(claim: Claim, run: str) -> dict[str, object]:
    kind = {PASSED: "pass", FAILED: "fail"}.get(claim.status, "notApplicable")
    place = {"physicalLocation": {"artifactLocation": {"uri": _uri(run)}}, "logicalLocations": [{"name": claim.group}]}
    return {
        "ruleId": _rule(claim),
        "kind": kind,
        "level": "error" if claim.status == FAILED else "none",
        "message": {"text": f"{claim.group}: {claim.name}: {claim.text}"},
        "locations": [place],
    }


def _rule(claim: Claim) -> str:
    """Return the identity of a rule; all headline accuracies share one."""
    name = "robust accuracy" if claim.group == "robust accuracy" else claim.name
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _title(claim: Claim) -> str:
    return "robust accuracy" if claim.group == "robust accuracy" else claim.name


def _uri(run: str) -> str:
    return quote(run.replace("\\", "/")) or "."
