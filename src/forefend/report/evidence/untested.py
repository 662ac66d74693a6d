"""Section 2: what was not tested. It is never empty."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from forefend.report.evidence import commands
from forefend.report.evidence.headline import AUTOATTACK, Verdict, accesses, verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.evidence.verdict import ENOUGH
from forefend.report.page.blocks import Cell, Code, Section, Table
from forefend.runtime.formatting import format_radius

Gap = tuple[str, str, str]  # what, why it matters, the command that would test it


def section(sources: Sources) -> Section:
    """Return every question that no record of the run answers."""
    rows: list[list[Cell]] = [[what, why, Code(command)] for what, why, command in gaps(sources)]
    heading = ["not tested", "what this leaves open", "command"]
    lead = "What is listed here may lower the numbers of this page, and nothing in it says by how much."
    return Section("untested", "What was not tested", [Table(heading, rows)], lead=lead)


def gaps(sources: Sources) -> list[Gap]:
    """Return what was not tested, the most important first."""
    verdict = verdict_of(sources)
    return list(chain(_attacks(sources, verdict), _threats(sources, verdict), _sample(sources, verdict), _always()))


def _attacks(sources: Sources, verdict: Verdict | None) -> Iterator[Gap]:
    if verdict is None:
        yield "any attack", "Nothing is known of robustness.", commands.evaluate(sources, None)
        return
    if verdict.strength < AUTOATTACK:
        command = commands.evaluate(sources, verdict)
        yield "AutoAttack", "The attacks that ran are weaker: the robust accuracy is an upper bound.", command
    if not sources.checks:
        command = commands.forefend("check", sources, *commands.threat(sources, verdict))
        yield "gradient masking", "Whether the attacks followed gradients that mean something.", command
    seen = set(chain.from_iterable(accesses(one.trials) for one in sources.evaluations))
    trials = [trial for one in sources.evaluations for trial in one.trials]
    if not any(name in trial for trial in trials for name in ("AutoAttack", "Square", "HopSkipJump", "Boundary")):
        command = commands.evaluate(sources, verdict, suite="black-box")
        yield "attacks by queries", "An attacker who sees answers alone.", command
    if verdict.defended and not sources.transfers and not seen & {"transfer", "crafted"}:
        command = commands.forefend("transfer", sources, *commands.threat(sources, verdict))
        yield "transferred images", "Images crafted on other classifiers, or through a public defense.", command


def _threats(sources: Sources, verdict: Verdict | None) -> Iterator[Gap]:
    cells = {(result.norm, result.radius) for one in sources.evaluations for result in one.results if result.norm}
    norms = {norm for norm, _ in cells}
    for norm, example in (("Linf", "Linf:8/255"), ("L2", "L2:0.5")):
        if cells and norm not in norms:
            yield f"{norm} attacks", "Robustness in one norm says little of another.", _at(sources, example)
    if len(cells) == 1:
        ((norm, radius),) = cells
        wanted = [f"{norm}:{format_radius(part * radius)}" for part in (0.5, 1, 2)]
        command = commands.forefend("evaluate", sources, "--suite", "curve", "--threat", *wanted)
        yield "other radii", "Smaller and larger changes; the accuracy must fall to chance as they grow.", command
    if not sources.corruptions:
        command = commands.forefend("corruptions", sources)
        yield "common corruptions", "Blur, noise, weather and compression, which no attacker chose.", command
    if not sources.certificates:
        command = commands.forefend("certify", sources)
        yield "a proof", "Every accuracy here is measured: no attack that was tried succeeded.", command


def _at(sources: Sources, threat: str) -> str:
    return commands.forefend("evaluate", sources, "--suite", "standard", "--threat", threat)


def _sample(sources: Sources, verdict: Verdict | None) -> Iterator[Gap]:
    if verdict is None:
        return
    n = verdict.weakest.robust.n
    if n < ENOUGH:
        command = commands.evaluate(sources, verdict, "--images", str(ENOUGH))
        yield (
            f"more than {n:,} images",
            f"With {ENOUGH:,} or more the intervals shrink; tables of papers have 10,000.",
            command,
        )
    seeds = {result.seed for one in sources.evaluations for result in one.results}
    if len(seeds) < 2:
        command = commands.evaluate(sources, verdict, "--seed", str(max(seeds, default=0) + 1))
        yield (
            "other seeds of the attacks",
            f"All attacks started from the random numbers of seed {min(seeds)}.",
            command,
        )
    if sources.config:
        seed = sources.config.get("seed")
        yield "other trainings", f"One training, seed {seed}: another may come out otherwise.", ""
    if verdict.defended and all(one.seen for one in verdict.headlines):
        command = commands.evaluate(sources, verdict, "--classifiers", "YOURS")
        yield "classifiers that the defense did not see", "It may protect its guides alone.", command


def _always() -> Sequence[Gap]:
    return [
        (
            "an adaptive attack",
            "One that a person designs against this defense, knowing how it works, may succeed where these fail.",
            "",
        ),
        (
            "physical and spatial changes",
            "Patches, rotation, translation, lighting and printed images are outside every threat model of this page.",
            "",
        ),
        (
            "other stages of an attack",
            "Poisoned training data, stolen models and changed weights are not examined.",
            "",
        ),
    ]
