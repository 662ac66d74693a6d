"""Results of the gradient-masking checks, as text and JSON. This module does not need torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.runtime.files import read_versioned, write_versioned

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
_MARKS = {FAILED: "FAIL", SKIPPED: "skip", PASSED: "ok  "}  # in the order of the report


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Args:
        check: name of the check.
        measured: what was measured, in words and numbers.
        bound: what the check requires.
        status: `passed`, `failed`, or `skipped` where nothing was measured.
        advice: what to do if it failed.
    """

    check: str
    measured: str
    bound: str
    status: str
    advice: str

    @property
    def passed(self) -> bool:
        """Whether the measurement is within the bound; a skipped check has not passed."""
        return self.status == PASSED

    @property
    def failed(self) -> bool:
        """Whether the measurement is outside the bound."""
        return self.status == FAILED


def status_of(passed: bool) -> str:
    """Return the status of a check that measured something."""
    return PASSED if passed else FAILED


def percent_of(share: float) -> str:
    """Return a share as text with one decimal."""
    return f"{100 * share:.1f} %"


class CheckReport(list[CheckResult]):
    """Results of all checks of one model; `print(report)` shows failed and skipped checks first.

    Args:
        results: one result for each check.
        model: name of the model.
        threat: threat model of the attacks.
        images: number of images.
        defense: identity of the defense in front of it; empty without one, and in reports of older versions.
        network: digest of the tensors and the architecture of all that was checked; empty in those too.
    """

    def __init__(
        self,
        results: Iterable[CheckResult],
        model: str = "classifier",
        threat: str = "",
        images: int = 0,
        *,
        defense: str = "",
        network: str = "",
    ) -> None:
        super().__init__(results)
        self.model, self.threat, self.images = model, threat, images
        self.defense, self.network = defense, network

    @property
    def passed(self) -> bool:
        """Whether no check failed; skipped checks say nothing."""
        return not any(result.failed for result in self)

    def __str__(self) -> str:
        failed, skipped = (sum(result.status == status for result in self) for status in (FAILED, SKIPPED))
        heading = f"{self.model}: {f'{failed} of {len(self)} checks FAILED' if failed else 'passed'}"
        heading += f", {skipped} skipped" if skipped else ""
        ordered = sorted(self, key=lambda result: list(_MARKS).index(result.status))
        return "\n".join([heading, *(line for result in ordered for line in _lines(result))])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        who = {"model": self.model, "defense": self.defense, "network": self.network}
        about = {"threat": self.threat, "images": self.images, "passed": self.passed}
        return who | about | {"checks": [asdict(result) for result in self]}

    def save(self, path: Path) -> None:
        """Write the report into a JSON file that holds one report for each model."""
        reports = read_versioned(path).get("reports", {}) if path.exists() else {}
        write_versioned(path, {"reports": reports | {self.model: self.to_json()}})


def reports_in(path: Path) -> list[CheckReport]:
    """Return the reports that `CheckReport.save` wrote into a file, one for each model.

    Raises:
        InputError: the file holds something else.
    """
    try:
        return [_report(held) for held in read_versioned(path)["reports"].values()]
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path} holds no reports of checks: run forefend check again.") from None


def _report(held: dict[str, Any]) -> CheckReport:
    results = [CheckResult(**one) for one in held["checks"]]
    if any(result.status not in _MARKS or type(result.check) is not str for result in results):
        raise TypeError
    identity = {name: str(held.get(name, "")) for name in ("defense", "network")}
    return CheckReport(results, str(held["model"]), str(held["threat"]), int(held["images"]), **identity)


def _lines(result: CheckResult) -> list[str]:
    texts = [f"measured: {result.measured}", f"required: {result.bound}"]
    texts += [f"what to do: {result.advice}"] if result.failed else []
    return [f"  {_MARKS[result.status]} {result.check}"] + [
        textwrap.fill(text, 116, initial_indent=" " * 7, subsequent_indent=" " * 9) for text in texts
    ]
