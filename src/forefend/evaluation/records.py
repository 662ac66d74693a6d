"""Records of verdicts: one JSON line for each batch of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.runtime.files import DamagedLines, leave, read_records


@dataclass(frozen=True)
class Record:
    """Verdicts of one model under one trial on a batch of images.

    Args:
        model: key of the model and the data: fingerprints of weights and architecture, and the name
            of the set.
        trial: identity of the attack, its threat model and the attacker's access; `none` for clean
            images.
        seed: the seed of the evaluation.
        index: dataset index of each image.
        misclassified: whether each image is misclassified.
        images: a digest of each image and its label; a record without digests is counted, and not
            resumed from.
        predicted: the class predicted for each image, on clean images of an evaluation.
        moved: for a defended model, how far each image was moved: the differences of `Movement`.
    """

    model: str
    trial: str
    seed: int
    index: list[int]
    misclassified: list[bool]
    images: list[str] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)
    moved: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        types = {"model": str, "trial": str, "seed": int, "index": list, "misclassified": list, "images": list}
        types |= {"predicted": list, "moved": list}
        for name, kind in types.items():
            if type(getattr(self, name)) is not kind:
                raise InputError(f"its {name} is {getattr(self, name)!r:.40}, expected a {kind.__name__}")
        for name, kind in {"index": int, "misclassified": bool, "images": str, "predicted": int}.items():
            for value in getattr(self, name):
                if type(value) is not kind:
                    raise InputError(f"its {name} holds {value!r:.40}, expected values of type {kind.__name__}")
        if any(type(row) is not list or len(row) != 3 or {*map(type, row)} - {float, int} for row in self.moved):
            raise InputError("its moved holds other values than three numbers for each image")
        if len(self.misclassified) != len(self.index) or len(self.images) not in (0, len(self.index)):
            raise InputError(f"it has {len(self.misclassified)} verdicts on {len(self.index)} images")


def read(path: Path, damaged: DamagedLines = leave) -> list[Record]:
    """Return all records in `path`, oldest first; an incomplete last line is dropped.

    A line that is damaged or edited is left out, and `damaged` receives it.

    Raises:
        InputError: two lines contradict each other.
    """
    verdicts: dict[tuple[Any, ...], tuple[bool, int]] = {}
    found = read_records(path, Record, damaged)
    for number, record in found:
        for index, wrong, digest in zip_longest(record.index, record.misclassified, record.images):
            case = record.model, record.trial, record.seed, index, digest
            before, line = verdicts.setdefault(case, (wrong, number))
            if before != wrong:
                raise InputError(
                    f"Lines {line} and {number} of {path} have different verdicts on image {index} under "
                    f"{record.trial}: delete one of them, or both to evaluate again."
                )
    return [record for _, record in found]
