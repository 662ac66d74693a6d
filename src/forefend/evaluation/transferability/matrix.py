"""TransferMatrix: defended classifiers against images that are crafted on each source, as table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.evaluation.statistics import wilson
from forefend.runtime import files
from forefend.runtime.formatting import markdown_table, percent, text_table

ALONE = ""  # of a source without a defense
DEFENDED = "the defense"  # of a source behind the defense that is evaluated
ANY = "any other"  # a source: whatever classifier misleads the image, but for the one that is evaluated


@dataclass(frozen=True)
class Cell:
    """One accuracy.

    Args:
        attack: title of the attack; empty on clean images.
        source: the classifier that the images were crafted on; empty on clean images, `any other` for the worst of
            all but the classifier itself, image by image.
        behind: what is in front of the source: nothing (empty), `the defense`, or the name of a surrogate defense.
        classifier: the classifier that is evaluated, behind the defense.
        seen: whether it was a guide of the defense.
        n: the number of images.
        accuracy: share classified correctly, in [0, 1].
        low: lower end of the 95% Wilson interval.
        high: upper end.
    """

    attack: str
    source: str
    behind: str
    classifier: str
    seen: bool
    n: int
    accuracy: float
    low: float
    high: float

    @property
    def white_box(self) -> bool:
        """Whether the attacker had the classifier and the defense."""
        return self.source == self.classifier and self.behind == DEFENDED

    @property
    def row(self) -> tuple[str, str, str]:
        """What tells the attackers apart: attack, source, and what is in front of it."""
        return self.attack, self.source, self.behind

    def __str__(self) -> str:
        return percent(self.accuracy, self.low, self.high, self.n) + (" *" if self.white_box else "")


def cell_of(row: tuple[str, str, str], classifier: str, seen: bool, misclassified: Sequence[bool]) -> Cell:
    """Return the cell of some verdicts."""
    right, n = len(misclassified) - sum(misclassified), len(misclassified)
    return Cell(*row, classifier, seen, n, right / n, *wilson(right, n))


@dataclass(frozen=True)
class TransferMatrix:
    """The accuracy of defended classifiers on images that are crafted on each source; `print` shows a table.

    Args:
        cells: the accuracies, on clean images first.
        threat: the threat model of the attacks.
        seed: of the attacks.
        about: what was evaluated: data and defense.
        warnings: signs that a model does not work on clean images, a sentence each.
    """

    cells: Sequence[Cell]
    threat: str
    seed: int
    about: Mapping[str, Any]
    warnings: Sequence[str] = ()

    def cell(self, classifier: str, attack: str = "", source: str = "", behind: str = ALONE) -> Cell:
        """Return one accuracy; without an attack, that on clean images.

        Raises:
            StopIteration: there is none.
        """
        wanted = ((attack, source, behind), classifier)
        return next(cell for cell in self.cells if (cell.row, cell.classifier) == wanted)

    @property
    def attacks(self) -> list[str]:
        """The titles of the attacks."""
        return list(dict.fromkeys(cell.attack for cell in self.cells if cell.attack))

    @property
    def classifiers(self) -> dict[str, bool]:
        """The evaluated classifiers by name, and whether each was a guide."""
        return {cell.classifier: cell.seen for cell in self.cells}

    def __str__(self) -> str:
        return "\n".join([f"WARNING: {text}" for text in self.warnings] + [text_table(*self.layout()), self.caption])

    def to_markdown(self) -> str:
        """Return warnings, table and caption in Markdown."""
        warnings = [f"**Warning:** {warning}" for warning in self.warnings]
        return "\n\n".join([*warnings, markdown_table(*self.layout()), self.caption]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return settings and cells as JSON values."""
        cells = [asdict(cell) | {"white_box": cell.white_box} for cell in self.cells]
        return {"threat": self.threat, "seed": self.seed, **self.about, "warnings": list(self.warnings), "cells": cells}

    def save(self, folder: Path) -> None:
        """Write `transfer.json` and `transfer.md`."""
        files.write_versioned(folder / "transfer.json", self.to_json() | {"about": files.provenance()})
        files.write(folder / "transfer.md", self.to_markdown().encode())

    @property
    def caption(self) -> str:
        """The line under the table."""
        return (
            f"accuracy in % of classifiers behind {self.about['defense']} on {self.about['data']}, [95% Wilson "
            f"interval]; {self.threat}, seed {self.seed}; * white box: crafted on the same classifier and defense; "
            f"any other: the worst source but the classifier itself, image by image"
        )

    def layout(self) -> tuple[list[str], list[list[str]]]:
        """Return heading and rows: a row for each attacker, a column for each classifier behind the defense."""
        found = {(cell.row, cell.classifier): str(cell) for cell in self.cells}
        titles = [f"{name} ({'guide' if seen else 'unseen'})" for name, seen in self.classifiers.items()]
        rows = []
        for row in dict.fromkeys(cell.row for cell in self.cells):
            attack, source, behind = row
            cells = [found.get((row, classifier), "–") for classifier in self.classifiers]
            rows.append([attack or "none", source or "–", behind or "–", *cells])
        return ["attack", "crafted on", "behind", *titles], rows


def matrix_in(path: Path) -> TransferMatrix:
    """Return the matrix that `TransferMatrix.save` wrote into a file.

    Raises:
        InputError: the file holds something else, or a share outside [0, 1].
    """
    try:
        held = files.read_versioned(path)
        names = [field.name for field in fields(Cell)]
        cells = [Cell(**{name: one[name] for name in names}) for one in held["cells"]]
        if not cells or any(not 0 <= cell.low <= cell.high <= 1 or not 0 <= cell.accuracy <= 1 for cell in cells):
            raise ValueError
        about = {name: held[name] for name in ("defense", "data")}
        return TransferMatrix(cells, str(held["threat"]), int(held["seed"]), about, list(held["warnings"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} holds no transfer matrix: run forefend transfer again.") from None
