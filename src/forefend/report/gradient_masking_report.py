from __future__ import annotations

import textwrap
from collections.abc import Sequence

from forefend.evaluation.gradient_masking.evidence import CheckResult


def report(name: str, found: Sequence[CheckResult]) -> str:
    """The findings as one reads them, what failed first."""
    failed = sum(not finding.passed for finding in found)
    head = f"{name}: {'passed' if not failed else f'{failed} of {len(found)} checks FAILED'}"
    lines = [line for finding in sorted(found, key=lambda f: f.passed) for line in _lines(finding)]
    return "\n".join([head, *lines])


def _lines(finding: CheckResult) -> list[str]:
    mark = "ok  " if finding.passed else "FAIL"
    said = [f"measured: {finding.measured}", f"must be: {finding.bound}"]
    said += [] if finding.passed else [f"what to do: {finding.advice}"]
    return [f"  {mark} {finding.check}"] + [
        textwrap.fill(text, 116, initial_indent=" " * 7, subsequent_indent=" " * 9) for text in said
    ]
