"""Results on corrupted images, the tables of them, and `corruptions.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, final

from forefend.evaluation.result_rows import read_rows, sealed
from forefend.evaluation.results import CLEAN
from forefend.evaluation.statistics import Z95, wilson
from forefend.runtime.files import write_versioned
from forefend.runtime.formatting import markdown_table, percent, text_table

MEAN = "mean"
ALL = 0  # in place of a severity: the mean over those measured, or the clean images, which have none
NOT_COMPARABLE = "corrupted images made by forefend: not comparable with published mCE"


@dataclass(frozen=True)
class CorruptionResult:
    """One accuracy on corrupted images; shares are in [0, 1].

    Args:
        classifier: name of the classifier.
        seen: whether it was a guide of the defense.
        defended: whether the defense was in front of it.
        corruption: its name; `none` on clean images, `mean` for the mean over all corruptions and
            severities.
        severity: 1 to 5; 0 for the mean over a corruption's severities, and on clean images.
        made: whether any of the images were made by forefend and are not the published ones.
        n: the number of images; for a mean, each counts with its own mean.
        accuracy: share classified correctly, or the mean of such shares.
        low: lower end of the 95% interval: Wilson's, and for a mean the normal one over images.
        high: upper end.
        seed: the seed of the evaluation.
    """

    classifier: str
    seen: bool
    defended: bool
    corruption: str
    severity: int
    made: bool
    n: int
    accuracy: float
    low: float
    high: float
    seed: int


@final
class CorruptionResults(list[CorruptionResult]):
    """Results on corrupted images; `print` shows a table for each model."""

    def __str__(self) -> str:
        tables = [f"{title}\n{text_table(heading, rows)}" for title, heading, rows in self.tables()]
        return "\n\n".join([*tables, self.caption()])

    def to_markdown(self) -> str:
        """Return the tables in Markdown."""
        tables = [f"**{title}**\n\n{markdown_table(heading, rows)}" for title, heading, rows in self.tables()]
        return "\n\n".join([*tables, self.caption()])

    def tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield title, heading and rows for each model, with the gain of a defended one."""
        any_defended = any(r.defended for r in self)
        for classifier, seen, defended in dict.fromkeys((r.classifier, r.seen, r.defended) for r in self):
            own = [r for r in self if (r.classifier, r.defended) == (classifier, defended)]
            alone = [r for r in self if (r.classifier, r.defended) == (classifier, False)] if defended else []
            severities = sorted({r.severity for r in own if r.severity != ALL})
            heading = ["corruption", *map(str, severities), "mean", *(["gain"] if alone else [])]
            rows = [_row(name, severities, own, alone) for name in dict.fromkeys(r.corruption for r in own)]
            role = f" ({'guide' if seen else 'unseen'}), {'' if defended else 'un'}defended" if any_defended else ""
            note = f" — {NOT_COMPARABLE}" if any(r.made for r in own) else ""
            yield f"{classifier}{role}, n={own[0].n}{note}", heading, rows

    def caption(self) -> str:
        """Return the line under the tables: unit, intervals, seed and origin of the images."""
        seeds = ", ".join(map(str, sorted({r.seed for r in self})))
        gain = "; gain: points of the mean over the classifier alone" if any(r.defended for r in self) else ""
        note = f"; {NOT_COMPARABLE}" if any(r.made for r in self) else ""
        return f"accuracy in %, [95% interval] by severity; seed {seeds}{gain}{note}"


def _row(
    name: str, severities: Sequence[int], own: Sequence[CorruptionResult], alone: Sequence[CorruptionResult]
) -> list[str]:
    here = {r.severity: r for r in own if r.corruption == name}
    label = {CLEAN: "clean", MEAN: "all, mean"}.get(name, name)
    row = [label, *(_share(here.get(severity)) for severity in (*severities, ALL))]
    base = next((r for r in alone if (r.corruption, r.severity) == (name, ALL)), None)
    if alone:
        row.append(f"{100 * (here[ALL].accuracy - base.accuracy):+.1f}" if base else "–")
    return row


def _share(result: CorruptionResult | None) -> str:
    return percent(result.accuracy, result.low, result.high) if result else ""


@dataclass(frozen=True)
class CorruptionRow:
    """What the results of one model have in common."""

    classifier: str
    seen: bool
    defended: bool
    seed: int

    def count(
        self, conditions: Sequence[tuple[str, int, bool]], verdicts: Sequence[Mapping[int, bool]]
    ) -> list[CorruptionResult]:
        """Count verdicts for clean images, for each corruption at each severity, and for the means.

        Args:
            conditions: corruption, severity, and whether the images were made by forefend.
            verdicts: for each condition, whether each image is misclassified.
        """
        pairs = list(zip(conditions, verdicts, strict=True))
        clean = [self._result(CLEAN, ALL, [pair]) for pair in pairs if pair[0][0] == CLEAN]
        corrupted = [pair for pair in pairs if pair[0][0] != CLEAN]
        found = []
        for name in dict.fromkeys(condition[0] for condition, _ in corrupted):
            own = [pair for pair in corrupted if pair[0][0] == name]
            found += [self._result(name, pair[0][1], [pair]) for pair in own]
            found.append(self._result(name, ALL, own))
        return clean + found + ([self._result(MEAN, ALL, corrupted)] if corrupted else [])

    def _result(
        self, name: str, severity: int, pairs: Sequence[tuple[tuple[str, int, bool], Mapping[int, bool]]]
    ) -> CorruptionResult:
        scores = [fmean(not verdicts[index] for _, verdicts in pairs) for index in pairs[0][1]]
        made = any(made for (_, _, made), _ in pairs)
        share: dict[str, Any] = dict(zip(("accuracy", "low", "high"), mean_interval(scores), strict=True))
        return CorruptionResult(**vars(self), corruption=name, severity=severity, made=made, n=len(scores), **share)


def mean_interval(scores: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95% interval of scores in [0, 1]: Wilson's for 0 and 1, else normal."""
    n, mean = len(scores), fmean(scores)
    if set(scores) <= {0.0, 1.0}:
        return mean, *wilson(round(sum(scores)), n)
    spread = Z95 * stdev(scores) / n**0.5 if n > 1 else 1.0
    return mean, max(0.0, mean - spread), min(1.0, mean + spread)


def save(folder: Path, results: Sequence[CorruptionResult]) -> None:
    """Write `corruptions.json`, which says whether the images are the published ones."""
    note = NOT_COMPARABLE if any(result.made for result in results) else "published corrupted images"
    write_versioned(folder / "corruptions.json", {"images": note} | sealed([asdict(r) for r in results]))


def load(folder: Path) -> CorruptionResults:
    """Read the results in `folder`.

    Raises:
        InputError: there are none, or they are not ours.
    """
    rows = read_rows(folder / "corruptions.json", CorruptionResult)
    return CorruptionResults(CorruptionResult(**row) for row in rows)
