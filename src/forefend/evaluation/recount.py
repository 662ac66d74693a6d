"""Count the results of an evaluation again, from its records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forefend.checks import InputError
from forefend.evaluation import records
from forefend.evaluation.manifest import Counted
from forefend.evaluation.records import Record
from forefend.evaluation.results import CLEAN, Result, Row
from forefend.runtime.files import read_versioned


@dataclass(frozen=True)
class Recount:
    """The results of one model, counted again, and what they are counted from.

    Args:
        model: which model it is.
        results: its results.
        verdicts: for clean images and each trial, whether each image is misclassified, by dataset index.
        predicted: the class predicted for each clean image, where it was recorded.
    """

    model: Counted
    results: Sequence[Result]
    verdicts: Sequence[Mapping[int, bool]] = ()
    predicted: Mapping[int, int] = field(default_factory=dict)

    @property
    def data(self) -> str:
        """Name and split of the images, with which the key of the model begins."""
        return self.model.key.partition(":")[0]

    @property
    def identity(self) -> str:
        """What was measured, by weights, architecture and answers; the rest of the key."""
        return self.model.key.partition(":")[2]


def recount(folder: Path, lines: Sequence[Record] | None = None) -> list[Recount]:
    """Count the results of each model of an evaluation from `records.jsonl`; `summary.json` is not read.

    Args:
        folder: of the evaluation.
        lines: its records, where they were read before.

    Raises:
        InputError: the folder is of no evaluation or of an older version, or records are missing.
    """
    held = read_versioned(folder / "evaluation.json")
    try:
        models = [Counted(**model) for model in held["about"]["counted"]]
        index, seed = [int(number) for number in held["index"].split()], held["seed"]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(
            f"{folder}/evaluation.json does not say which defense was measured: evaluate again, which reuses records."
        ) from None
    lines = records.read(folder / "records.jsonl") if lines is None else lines
    return [_counted(folder, model, index, seed, lines) for model in models]


def _counted(folder: Path, model: Counted, index: Sequence[int], seed: int, lines: Sequence[Record]) -> Recount:
    clean = _verdicts(lines, model.key, CLEAN, seed)
    found = [_complete(folder, model.classifier, CLEAN, index, clean)]
    lost = {number: True for number in index if clean[number]}
    for name, _, _, identity in model.trials:
        verdicts = _verdicts(lines, model.key, identity, seed) | lost
        found.append(_complete(folder, model.classifier, name, index, verdicts))
    labels = [(CLEAN, "", 0.0), *((name, norm, radius) for name, norm, radius, _ in model.trials)]
    row = Row(model.classifier, model.seen, model.defended, len(index), seed)
    predicted: dict[int, int] = {}
    for line in lines:
        if (line.model, line.trial, line.seed) == (model.key, CLEAN, seed):
            predicted |= dict(zip(line.index, line.predicted, strict=False))
    return Recount(model, row.count(labels, found), found, predicted)


def _verdicts(lines: Sequence[Record], key: str, trial: str, seed: int) -> dict[int, bool]:
    found: dict[int, bool] = {}
    for line in lines:
        if (line.model, line.trial, line.seed) == (key, trial, seed):
            found |= dict(zip(line.index, line.misclassified, strict=True))
    return found


def _complete(
    folder: Path, classifier: str, trial: str, index: Sequence[int], verdicts: dict[int, bool]
) -> dict[int, bool]:
    missing = len(set(index) - verdicts.keys())
    if missing:
        raise InputError(
            f"{folder} has no record of {missing} of {len(index)} images of {classifier} under {trial}: evaluate "
            "again, as only what is recorded counts."
        )
    return {number: verdicts[number] for number in index}
