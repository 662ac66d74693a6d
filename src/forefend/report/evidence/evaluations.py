"""The evaluations of a run, counted again from their records, and what contradicts them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

from forefend.checks import InputError
from forefend.evaluation import records, results
from forefend.evaluation.records import Record
from forefend.evaluation.recount import Recount, recount
from forefend.evaluation.results import Result, Results
from forefend.evaluation.statistics import wilson
from forefend.report.page.blocks import Share
from forefend.runtime.files import read_versioned


@dataclass(frozen=True)
class FoundEvaluation:
    """One evaluation.

    Args:
        folder: where it lies.
        results: its results, with intervals at the confidence that was asked for.
        models: what each row is counted from; empty where the records do not say it.
        about: what `evaluation.json` says of models, trials, seed, command, versions and time.
        trials: the identities of its trials.
        labels: the true class of each image by dataset index, where it is known.
        faults: what contradicts its records, a sentence each.
        uncounted: why the results are not counted again from the records; empty if they are.
        data: name and split of the images; empty where no record says it.
    """

    folder: Path
    results: Results
    models: Sequence[Recount] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    trials: Sequence[str] = ()
    labels: Mapping[int, int] = field(default_factory=dict)
    faults: Sequence[str] = ()
    uncounted: str = ""
    data: str = ""

    @property
    def told(self) -> Mapping[str, Any]:
        """Versions, machine, command and time."""
        return _told(self.about)


def evaluations_of(run: Path, confidence: float) -> list[FoundEvaluation]:
    """Return the evaluations in a run, its own folder first.

    Args:
        run: the folder of a run, or of one evaluation.
        confidence: of the intervals, in (0, 1).
    """
    folders = [path.parent for path in sorted(run.glob("evaluations/*/summary.json"))]
    inside = [path.parent for path in sorted(run.glob("evaluations/*/records.jsonl")) if path.parent not in folders]
    own = [run] if (run / "summary.json").exists() or (run / "evaluation.json").exists() else []
    return [read_evaluation(folder, confidence) for folder in [*own, *folders, *inside]]


def read_evaluation(folder: Path, confidence: float = 0.95) -> FoundEvaluation:
    """Count an evaluation again from its records; where they do not allow it, its summary is read.

    Args:
        folder: of the evaluation.
        confidence: of the intervals, in (0, 1).
    """
    faults: list[str] = []
    lines, about = _lines(folder, faults), _about(folder, faults)
    summary = _summary(folder, faults)
    models, uncounted = _recounted(folder, lines)
    if uncounted and "counted" in _told(about):  # as in all but older versions
        faults.append(uncounted)
    counted = [result for one in models for result in one.results]
    if models and summary:
        faults += _differences(folder, counted, summary)
    faults += _other_seeds(folder, lines, about)
    found = Results(_at(confidence, counted or summary or ()))
    if summary is not None:
        found.warnings, found.classes, found.movement = summary.warnings, summary.classes, summary.movement
    trials = about.get("trials") or list(dict.fromkeys(line.trial for line in lines if line.trial != results.CLEAN))
    return FoundEvaluation(
        folder, found, models, about, trials, _labels(about, models), faults, uncounted, _data(about, lines)
    )


def z_of(confidence: float) -> float:
    """Return the normal quantile of a two-sided interval."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def counted_share(count: int, n: int, z: float) -> Share:
    """Return the share of some images among `n` with its Wilson interval at a normal quantile."""
    return Share(count / n, *wilson(count, n, z), n)


def _at(confidence: float, found: Sequence[Result]) -> Iterator[Result]:
    z = z_of(confidence)
    for result in found:
        low, high = wilson(round(result.accuracy * result.n), result.n, z)
        yield replace(result, low=low, high=high)


def _lines(folder: Path, faults: list[str]) -> list[Record]:
    def tell(path: Path, damaged: Mapping[int, str]) -> None:
        shown = [f"line {number} ({reason})" for number, reason in list(damaged.items())[:3]]
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        faults.append(f"{path} holds records that do not count: {', '.join(shown)}{more}.")

    try:
        return records.read(folder / "records.jsonl", tell)
    except InputError as error:
        faults.append(str(error))
        return []


def _about(folder: Path, faults: list[str]) -> dict[str, Any]:
    if not (folder / "evaluation.json").exists():
        return {}
    try:
        found = read_versioned(folder / "evaluation.json")
    except InputError as error:
        faults.append(str(error))
        return {}
    if isinstance(found, dict) and isinstance(found.get("models", {}), dict):
        return found
    faults.append(f"{folder}/evaluation.json is not of an evaluation.")
    return {}


def _summary(folder: Path, faults: list[str]) -> Results | None:
    if not (folder / "summary.json").exists():
        return None
    try:
        return results.read_summary(folder)
    except InputError as error:
        faults.append(str(error))
    except (TypeError, AttributeError, ValueError):
        faults.append(f"{folder}/summary.json is damaged.")
    return None


def _recounted(folder: Path, lines: Sequence[Record]) -> tuple[list[Recount], str]:
    try:
        return recount(folder, lines), ""
    except InputError as error:
        return [], str(error)


def _data(about: Mapping[str, Any], lines: Sequence[Record]) -> str:
    """Return name and split of the images, with which the key of each model begins."""
    keys = [*about.get("models", {}).values(), *(line.model for line in lines[:1])]
    return str(keys[0]).partition(":")[0] if keys else ""


def _told(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an evaluation says of its versions, command, rows and labels; empty where that is damaged."""
    found = about.get("about")
    return found if isinstance(found, dict) else {}


def _differences(folder: Path, counted: Sequence[Result], summary: Sequence[Result]) -> Iterator[str]:
    """Yield where the summary says other numbers than the records."""
    told = {_key(result): result.accuracy for result in summary}
    for result in counted:
        said = told.get(_key(result))
        if said is not None and abs(said - result.accuracy) > 1e-9:
            where = f"{result.classifier}{' behind the defense' * result.defended} under {result.attack}"
            yield (
                f"{folder}/summary.json says {100 * said:.1f} % for {where}, and the records "
                f"{100 * result.accuracy:.1f} %: the page shows the records."
            )


def _key(result: Result) -> tuple[str, bool, str, str, float]:
    return result.classifier, result.defended, result.attack, result.norm, result.radius


def _other_seeds(folder: Path, lines: Sequence[Record], about: Mapping[str, Any]) -> Iterator[str]:
    seed = about.get("seed")
    others = [line.seed for line in lines if line.seed != seed] if seed is not None else []
    if others:
        seeds = ", ".join(map(str, sorted(set(others))))
        yield f"{folder}/records.jsonl holds {len(others)} lines of seed {seeds}, not {seed}: they do not count."


def _labels(about: Mapping[str, Any], models: Sequence[Recount]) -> dict[int, int]:
    """Return the class of each image: as recorded, else what a model predicts that classifies it correctly."""
    told = _told(about)
    try:
        own = [int(word) for word in told["labels"].split()] if "labels" in told else []
        found = dict(zip(map(int, about["index"].split()), own, strict=True)) if own else {}
    except (ValueError, AttributeError, KeyError):
        found = {}
    for model in models if not found else ():
        clean = model.verdicts[0]
        found |= {i: label for i, label in model.predicted.items() if not clean.get(i, True)}
    return found
