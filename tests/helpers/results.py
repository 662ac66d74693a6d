"""Results of evaluations, made by hand."""

from __future__ import annotations

from collections.abc import Mapping

from forefend.evaluation.results import Result
from forefend.evaluation.statistics import wilson


def broken(verdicts: Mapping[int, bool]) -> frozenset[int]:
    """The images that are misclassified."""
    return frozenset(index for index, misclassified in verdicts.items() if misclassified)


def cell(classifier: str, share: float, **values: object) -> Result:
    """A cell on 200 images; clean, undefended and seen unless told otherwise."""
    low, high = wilson(round(200 * share), 200)
    plain = {"seen": True, "defended": False, "attack": "none", "norm": "", "radius": 0.0, "seed": 0}
    return Result(
        classifier=classifier, n=200, accuracy=share, low=low, high=high, cumulative=share, **{**plain, **values}
    )


def attacked(classifier: str, share: float, attack: str, radius: float, **values: object) -> Result:
    return cell(classifier, share, attack=attack, norm=str(values.pop("norm", "Linf")), radius=radius, **values)


def some_cells() -> list[Result]:
    """A guide alone and defended under two attacks at 8/255, and an unseen classifier under one at two radii."""
    radius = 8 / 255
    return [
        attacked("cnn", 0.3, "FGSM", radius),
        cell("cnn", 0.95),
        attacked("cnn", 0.1, "PGD", radius),
        attacked("cnn", 0.05, "worst", radius),
        cell("cnn", 0.8, defended=True),
        attacked("cnn", 0.6, "FGSM", radius, defended=True),
        attacked("cnn", 0.5, "PGD", radius, defended=True),
        attacked("cnn", 0.45, "worst", radius, defended=True),
        cell("other", 0.9, seen=False, defended=True),
        attacked("other", 0.4, "PGD", 0.1, seen=False, defended=True),
    ]
