"""Records of verdicts: one JSON line for each batch of images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from forefend.checks import InputError
from forefend.runtime.files import complete_lines


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
    """

    model: str
    trial: str
    seed: int
    index: list[int]
    misclassified: list[bool]
    images: list[str] = field(default_factory=list)


def read(path: Path) -> list[Record]:
    """Return all records in `path`, oldest first; an incomplete last line is dropped.

    Raises:
        InputError: a whole line is not a record.
    """
    return [_record(path, number, line) for number, line in enumerate(complete_lines(path), start=1)]


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        record = Record(**json.loads(line))
        if len(record.index) != len(record.misclassified):
            raise ValueError
        return record
    except (ValueError, TypeError):
        raise InputError(
            f"Line {number} of {path} is not a record: the file was edited or damaged; delete it to evaluate again."
        ) from None
