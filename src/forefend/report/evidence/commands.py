"""The commands that would fill what a page misses."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from forefend.report.evidence.headline import Verdict
from forefend.report.evidence.sources import Sources

# Options that say which models and images were evaluated; a further measurement needs the same.
KEPT = ("--classifiers", "--classifier", "--data", "--data-dir", "--mean", "--std", "--size", "--channels", "--outputs")
# Where a measurement of classifiers without a run goes, so that the page finds it.
PLACES: Mapping[str, str] = {
    "evaluate": "evaluations/more",
    "check": "check",
    "certify": "certificates/all",
    "corruptions": "corruptions/all",
    "transfer": "transfer/all",
    "latency": "",
}


def forefend(command: str, sources: Sources, *options: str) -> str:
    """Return a command line about the run, or about the classifiers of an evaluation without one."""
    if sources.config or sources.card:
        return shlex.join(["forefend", command, str(sources.run), *_same_models(sources), *options])
    place = ["--out", str(sources.run / PLACES[command])]
    return shlex.join(["forefend", command, *_same_models(sources), *options, *place])


def compare(sources: Sources) -> str:
    """Return the command that counts the operations of the training of a run."""
    return shlex.join(["forefend", "compare", str(sources.run)])


def evaluate(sources: Sources, verdict: Verdict | None, *options: str, suite: str = "standard") -> str:
    """Return the command that measures the run in the threat model of its verdict."""
    return forefend("evaluate", sources, "--suite", suite, *threat(sources, verdict), *options)


def threat(sources: Sources, verdict: Verdict | None) -> list[str]:
    """Return the option that names the threat model of the verdict, else that of training."""
    named = verdict.threat.replace(" ", ":") if verdict else sources.threat
    return ["--threat", named or "Linf:8/255"]


def _same_models(sources: Sources) -> list[str]:
    """Return the options of the first evaluation with some that say which models and images it measured."""
    for one in sources.evaluations:
        found, keeps = list[str](), False
        for word in _words(str(one.told.get("command", ""))):
            keeps = word.partition("=")[0] in KEPT if word.startswith("--") else keeps
            found += [word] if keeps else []
        if found:
            return found
    return [] if sources.config or sources.card else ["--classifiers", "YOURS", "--data", "YOURS"]


def _words(line: str) -> list[str]:
    """Return the words of a recorded command line; older versions recorded it without quotes."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()
