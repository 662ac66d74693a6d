"""What a pipeline can fail on: each check and each headline accuracy, as passed, failed or skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forefend.evaluation.gradient_masking.check_report import FAILED, PASSED, SKIPPED
from forefend.report.page.blocks import Page


@dataclass(frozen=True)
class Claim:
    """One line for a pipeline.

    Args:
        group: what it is about: records, robust accuracy, or the checks of a model.
        name: of the check, or of the classifier and the threat model.
        status: `passed`, `failed` or `skipped`.
        text: measurement and bound.
    """

    group: str
    name: str
    status: str
    text: str


def claims(page: Page) -> list[Claim]:
    """Return the claims of an evidence page: whether its records agree, its headlines, and its checks."""
    data = dict(page.data or {})
    faults = list(data.get("faults", []))
    found = [
        Claim("records", "the records agree", FAILED if faults else PASSED, " ".join(faults) or "no contradiction")
    ]
    found += [_headline(one, bool(faults)) for one in data.get("headlines", [])]
    for report in data.get("checks", []):
        found += _checks(report)
    return found


def _headline(one: Mapping[str, Any], doubted: bool) -> Claim:
    robust, behind = one["robust"], " behind the defense" * (one["robust_alone"] is not None)
    value, low, high = (100 * robust[name] for name in ("value", "low", "high"))
    text = f"robust accuracy {value:.1f} % [{low:.1f}–{high:.1f}], n={robust['n']}"
    return Claim(
        "robust accuracy", f"{one['classifier']}{behind}, {one['threat']}", FAILED if doubted else PASSED, text
    )


def _checks(report: Mapping[str, Any]) -> Iterator[Claim]:
    for one in report["checks"]:
        advice = f"; what to do: {one['advice']}" if one["status"] != PASSED else ""
        text = f"measured: {one['measured']}; required: {one['bound']}{advice}"
        status = one["status"] if one["status"] in (PASSED, FAILED, SKIPPED) else FAILED
        yield Claim(f"gradient masking, {report['model']}", one["check"], status, text)
