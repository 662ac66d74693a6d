"""Section 1: one sentence, and the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forefend.report.evidence import commands
from forefend.report.evidence.headline import AUTOATTACK, Verdict, verdict_of
from forefend.report.evidence.sources import Sources
from forefend.report.page import blocks
from forefend.report.page.blocks import COMPLETE, FAILED, MISSING, PARTIAL, Block, Notice, Section, Share, Table, Tile
from forefend.runtime.formatting import counted

ENOUGH = 1000  # images; RobustBench ranks on 10,000, and the papers' small tables have 1,000
NORMS = {
    "Linf": "change each pixel by at most {}",
    "L2": "change an image by at most {} in l2",
    "Wasserstein": "move a mass of at most {} between pixels",
}


def section(sources: Sources) -> Section:
    """Return the verdict: threat model, knowledge, images, interval, date, checks; and every fault of the records."""
    verdict = verdict_of(sources)
    doubt = "Do not rely on this page before this is explained."
    found: list[Block] = [Notice(FAILED, f"{doubt} {fault}") for fault in sources.all_faults]
    if verdict is None or not verdict.headlines:
        text = "Nothing was measured under attack: this page states no robust accuracy."
        found.append(Notice(MISSING, text, commands.evaluate(sources, None)))
        return Section("verdict", "Verdict", found, FAILED if sources.all_faults else MISSING)
    told = blocks.Verdict(sentence(sources, verdict), details(verdict), tiles(sources, verdict))
    found += [told, _table(sources, verdict)]
    found += _cautions(sources, verdict)
    return Section("verdict", "Verdict", found, grade(sources, verdict))


def sentence(sources: Sources, verdict: Verdict) -> str:
    """Return the verdict in one sentence."""
    weakest, many = verdict.weakest, len(verdict.headlines)
    allowed = NORMS.get(verdict.norm, "change an image by at most {} in " + verdict.norm)
    who = (
        f"the weakest of {many} classifiers, {weakest.classifier}," if many > 1 else f"classifier {weakest.classifier}"
    )
    radius, behind = verdict.threat.split(" ")[1], " behind the defense" * verdict.defended
    before = f", and {weakest.robust_alone.percent} % without the defense" if weakest.robust_alone else ""
    return (
        f"Against a {verdict.knowledge} and may {allowed.format(radius)}, {who}{behind} classifies "
        f"{in_words(weakest.robust, sources.confidence)} of the images correctly{before}."
    )


def details(verdict: Verdict) -> str:
    """Return in words what the numbers are counted from, and when."""
    weakest = verdict.weakest
    data, clean = verdict.evaluation.data, f"On clean images it is {weakest.clean.percent} %"
    clean += f", and {weakest.clean_alone.percent} % without the defense" if weakest.clean_alone else ""
    date = f"on {day(verdict)}" if day(verdict) else "at an unrecorded date"
    return (
        f"{clean}. Measured {date} on {weakest.robust.n:,} images of {data or 'an unrecorded set'}, seed "
        f"{seed_of(verdict)}, under {listed(verdict.attacks)}. The attacker may cause any wrong answer; an image "
        "counts as correct only if every attack fails on it."
    )


def in_words(share: Share, confidence: float) -> str:
    """Return a share with its interval."""
    return f"{share.percent} % ({100 * confidence:g} % interval {100 * share.low:.1f}–{100 * share.high:.1f} %)"


def day(verdict: Verdict) -> str:
    """Return the date of the measurement, such as 2026-11-30; empty where it is not recorded."""
    return str(verdict.evaluation.told.get("time", ""))[:10]


def listed(names: Sequence[str]) -> str:
    """Return names as a list in words."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def tiles(sources: Sources, verdict: Verdict) -> list[Tile]:
    """Return the large numbers: those of the weakest classifier."""
    weakest = verdict.weakest
    interval = f"{100 * sources.confidence:g} % interval {100 * weakest.robust.low:.1f}–{100 * weakest.robust.high:.1f}"
    before = f"{weakest.robust_alone.percent} % without the defense; " if weakest.robust_alone else ""
    clean = f"{weakest.clean_alone.percent} % without the defense" if weakest.clean_alone else f"n={weakest.clean.n}"
    checks = [result for report in sources.checks for result in report]
    failed, passed = sum(result.failed for result in checks), sum(result.passed for result in checks)
    word = f"{failed} FAILED" if failed else f"{passed} passed" if checks else "not run"
    skipped = len(checks) - failed - passed
    return [
        Tile(f"Robust accuracy, {verdict.threat}", f"{weakest.robust.percent} %", before + interval),
        Tile("Accuracy on clean images", f"{weakest.clean.percent} %", clean),
        Tile("Images", f"{weakest.robust.n:,}", f"seed {seed_of(verdict)}"),
        Tile(
            "Gradient-masking checks",
            word,
            f"{skipped} of {len(checks)} skipped" if checks else "the number may rest on masked gradients",
            FAILED if failed else COMPLETE if checks else MISSING,
        ),
    ]


def grade(sources: Sources, verdict: Verdict) -> str:
    """Return the grade of the verdict: complete under AutoAttack on enough images with every check passed."""
    if sources.all_faults or any(not report.passed for report in sources.checks):
        return FAILED
    full = verdict.strength == AUTOATTACK and verdict.weakest.robust.n >= ENOUGH and sources.checks
    return COMPLETE if full else PARTIAL


def seed_of(verdict: Verdict) -> int:
    """Return the seed of the attacks."""
    return next(iter(verdict.evaluation.results)).seed


def _table(sources: Sources, verdict: Verdict) -> Table:
    rows = []
    for one in verdict.headlines:
        role = ("seen in training" if one.seen else "unseen") if verdict.defended else "–"
        alone = [one.clean_alone or "–", one.robust_alone or "–"] if verdict.defended else []
        rows.append([one.classifier, role, *alone, one.clean, Share(**{**vars(one.robust), "bold": True})])
    names = ["clean", "robust"]
    if verdict.defended:
        names = ["clean, alone", "robust, alone", "clean, defended", "robust, defended"]
    caption = (
        f"Accuracy in %, [{100 * sources.confidence:g} % Wilson interval], n={verdict.weakest.robust.n}; robust: "
        f"{verdict.threat}, the worst of {listed(verdict.attacks)} on each image."
    )
    return Table(["classifier", "role", *names], rows, caption)


def _cautions(sources: Sources, verdict: Verdict) -> Iterator[Notice]:
    if verdict.evaluation.uncounted:
        yield Notice(PARTIAL, f"These numbers are read from a summary: {verdict.evaluation.uncounted}")
    if verdict.strength < AUTOATTACK:
        text = "AutoAttack did not run in this threat model: a stronger attack may lower the robust accuracy."
        yield Notice(PARTIAL, text, commands.evaluate(sources, verdict))
    if not sources.checks:
        text = "The gradient-masking checks were not run: the accuracy may rest on gradients that mislead the attacks."
        yield Notice(PARTIAL, text, commands.forefend("check", sources, *commands.threat(sources, verdict)))
    for report in sources.checks:
        if failed := [result.check for result in report if result.failed]:
            many = counted(len(failed), "check")
            yield Notice(FAILED, f"{report.model}: {many} of gradient masking failed ({'; '.join(failed)}).")
    for warning in verdict.evaluation.results.warnings:
        yield Notice(PARTIAL, warning)
