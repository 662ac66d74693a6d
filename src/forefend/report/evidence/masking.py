"""Section 6: the gradient-masking checks, with their names in *Indicators of Attack Failure*."""

from __future__ import annotations

from forefend.evaluation.gradient_masking.check_report import FAILED as CHECK_FAILED
from forefend.evaluation.gradient_masking.check_report import PASSED, SKIPPED, CheckReport
from forefend.report.evidence import commands
from forefend.report.evidence.headline import verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.page.blocks import (
    COMPLETE,
    FAILED,
    MISSING,
    Block,
    Cell,
    Heading,
    Mark,
    Notice,
    Section,
    Table,
    Text,
)

GRADIENTS, UNSTABLE, SILENT = "unavailable gradients", "unstable predictions", "silent success"
INCOMPLETE, TRANSFER, UNBOUNDED = "incomplete optimization", "transfer failure", "unbounded-attack failure"
# The failure of an attack that each check would show, as Pintor et al. (NeurIPS 2022, arXiv 2106.09947) name them.
FAILURES = {
    "the model works on clean images": "",
    "outputs do not depend on the batch": UNSTABLE,
    "recorded attacks follow gradients of the defense": TRANSFER,
    "the output is logits": GRADIENTS,
    "the output is deterministic, or was attacked through EOT": UNSTABLE,
    "no optimization runs in the forward pass": GRADIENTS,
    "input gradients are not zero": GRADIENTS,
    "the recorded accuracy agrees with these attacks": f"{SILENT}, {INCOMPLETE}",
    "random noise does not beat attacks": INCOMPLETE,
    "black-box attacks do not beat white-box attacks": GRADIENTS,
    "transfer attacks do not beat white-box attacks": GRADIENTS,
    "BPDA does not beat white-box attacks": GRADIENTS,
    "the loss rises along the gradient": GRADIENTS,
    "iterative attacks beat a single step": INCOMPLETE,
    "more steps and restarts break few more images": INCOMPLETE,
    "accuracy falls to chance as the radius grows": UNBOUNDED,
    "accuracy does not rise with the radius": INCOMPLETE,
    "a stronger attack breaks few more images": INCOMPLETE,
}
MARKS = {PASSED: (COMPLETE, "PASS"), CHECK_FAILED: (FAILED, "FAIL"), SKIPPED: (MISSING, "skipped")}


def section(sources: Sources) -> Section:
    """Return a table for each checked model, failed and skipped checks first."""
    title = "Gradient-masking checks"
    if not sources.checks:
        command = commands.forefend("check", sources, *commands.threat(sources, verdict_of(sources)))
        text = "No check was run. A robust accuracy may come from gradients that mislead attacks; only checks can tell."
        return Section("checks", title, [Notice(MISSING, text, command)], MISSING)
    found: list[Block] = [Text(_about(report)) for report in sources.checks[:1]]
    for report in sources.checks:
        found += [Heading(f"{report.model}: {counts(report)}"), _table(report)]
        if "guides" in sources.card and not report.defense:
            found.append(Text("The report does not name the defense that was checked: it may be another one."))
    grade = FAILED if any(not report.passed for report in sources.checks) else COMPLETE
    lead = "A failed check shows that an accuracy is not to be trusted. Passed checks show that no sign was found."
    return Section("checks", title, found, grade, lead)


def _about(report: CheckReport) -> str:
    return (
        f"Each model was attacked anew on {report.images} images in {report.threat}. The column failure names what "
        "the check would reveal, in the words of Indicators of Attack Failure (Pintor et al., NeurIPS 2022)."
    )


def _table(report: CheckReport) -> Table:
    ordered = sorted(report, key=lambda result: [CHECK_FAILED, SKIPPED, PASSED].index(result.status))
    rows: list[list[Cell]] = [
        [
            result.check,
            Mark(*MARKS[result.status]),
            result.measured,
            result.bound,
            FAILURES.get(result.check, "") or "–",
            *([result.advice if result.failed else "–"] if any(one.failed for one in report) else []),
        ]
        for result in ordered
    ]
    heading = ["check", "", "measured", "required", "failure"]
    heading += ["what to do"] if any(one.failed for one in report) else []
    return Table(heading, rows)


def counts(report: CheckReport) -> str:
    """Return how many checks passed, failed and were skipped."""
    failed, skipped = (sum(result.status == status for result in report) for status in (CHECK_FAILED, SKIPPED))
    return f"{len(report) - failed - skipped} passed, {failed} failed, {skipped} skipped"
