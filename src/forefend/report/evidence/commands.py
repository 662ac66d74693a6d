"""The commands that would fill what a page misses."""

from __future__ import annotations

import shlex

from forefend.report.evidence.headline import Verdict
from forefend.report.evidence.sources import Sources


def forefend(command: str, sources: Sources, *options: str) -> str:
    """Return a command line about the run, with its path quoted."""
    return " ".join(["forefend", command, shlex.quote(str(sources.run)), *options])


def evaluate(sources: Sources, verdict: Verdict | None, *options: str, suite: str = "standard") -> str:
    """Return the command that measures the run in the threat model of its verdict."""
    return forefend("evaluate", sources, "--suite", suite, *threat(sources, verdict), *options)


def threat(sources: Sources, verdict: Verdict | None) -> list[str]:
    """Return the option that names the threat model of the verdict, else that of training."""
    named = verdict.threat.replace(" ", ":") if verdict else sources.threat
    return ["--threat", named or "Linf:8/255"]
