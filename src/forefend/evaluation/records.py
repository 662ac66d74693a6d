from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from forefend.checks import InputError
from forefend.runtime.files import append, complete_lines


@dataclass(frozen=True)
class Record:
    """What one trial did to one batch of images.

    Args:
        model: key of what was judged: the fingerprints of the classifier and its defense, and the data.
        trial: identity of the attack, its threat model and what it sees; `none` for clean images.
        seed: the evaluation's seed.
        index: dataset index of each image.
        lost: whether each image is misclassified at the end.
        images: a digest of each image and its label, so that a verdict is not taken for another image's; a record
            without them can be recounted, not gone on from.
    """

    model: str
    trial: str
    seed: int
    index: list[int]
    lost: list[bool]
    images: list[str] = field(default_factory=list)


def read(path: Path) -> list[Record]:
    """All records in `path`, oldest first; none when it does not exist. A line that was cut short is dropped.

    Raises:
        InputError: a whole line is not a record.
    """
    return [_record(path, number, line) for number, line in enumerate(complete_lines(path), start=1)]


def part(folder: Path, rank: int) -> Path:
    """The file that one of several processes appends to; process 0 has `records.jsonl` itself."""
    return folder / (f"records-{rank}.jsonl" if rank else "records.jsonl")


def gather(folder: Path) -> None:
    """Put what several processes recorded into `records.jsonl`; a line that a crash leaves twice is one verdict."""
    for path in sorted(folder.glob("records-*.jsonl")):
        append(part(folder, 0), *read(path))
        path.unlink()


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        fields = json.loads(line)
        if "subject" in fields:  # the name of the key in records of earlier versions
            fields["model"] = fields.pop("subject")
        record = Record(**fields)
        if len(record.index) != len(record.lost):
            raise ValueError
        return record
    except (ValueError, TypeError):
        raise InputError(
            f"Line {number} of {path} is no record: the file was edited or damaged; delete it to measure again."
        ) from None
