"""The numbers of a run that a list shows, chosen from its evaluations. This module does not need torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forefend.evaluation.result_rows import read_rows
from forefend.evaluation.results import CLEAN, WORST, Result, norm_and_radius


@dataclass(frozen=True)
class Best:
    """Clean and robust accuracy of one model in one evaluation.

    Args:
        evaluation: the folder of the evaluation.
        clean: accuracy without an attack.
        robust: accuracy under the worst attack on each image; None if none was made.
        attacks: the names of the attacks.
    """

    evaluation: Path
    clean: Result
    robust: Result | None = None
    attacks: Sequence[str] = ()


def best_numbers(evaluations: Sequence[Path], threat: str) -> Best | None:
    """Choose the numbers of a run, None if no evaluation has any.

    They are those of the defended guides where there are any, at the threat model of the training, else at the nearest
    radius of its norm; of the evaluation with the most images; and of the model that is the least robust there.

    Args:
        evaluations: folders with a `summary.json`.
        threat: the threat model of the training, as text.

    Raises:
        InputError: a summary is damaged.
    """
    found = [(folder, Result(**row)) for folder in evaluations for row in read_rows(folder / "summary.json", Result)]
    if not found:
        return None
    level = max(_level(result) for _, result in found)
    found = [(folder, result) for folder, result in found if _level(result) == level]
    norm, radius = norm_and_radius(threat) or ("", 0.0)

    def rank(result: Result) -> tuple[object, ...]:
        distance = abs(result.radius - radius) if result.norm == norm else float("inf")
        return result.attack == CLEAN, distance, -result.radius, -result.n, result.accuracy, result.attack != WORST

    folder, robust = min(found, key=lambda one: rank(one[1]))
    if robust.attack == CLEAN:
        return Best(folder, robust)
    own = [
        result
        for place, result in found
        if (place, result.classifier, result.seed) == (folder, robust.classifier, robust.seed)
    ]
    clean = next(result for result in own if result.attack == CLEAN)
    here = [result for result in own if (result.norm, result.radius) == (robust.norm, robust.radius)]
    return Best(folder, clean, robust, [result.attack for result in here if result.attack != WORST])


def _level(result: Result) -> tuple[bool, bool]:
    return result.defended, result.seen and result.defended
