"""A table of paths and labels of pictures, `.csv` or `.tsv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from forefend.checks import InputError
from forefend.data.columns import LABELS, PATHS, SPLITS, find_column, no_column
from forefend.data.dataset import ImageDataset, check_several, numbered_classes
from forefend.data.encoded_images import PictureFiles, encoded_images
from forefend.data.image_file import SUFFIXES, load_pillow
from forefend.data.splits import find_split, hash_split, is_split
from forefend.runtime.files import check_regular

MOST_BYTES = 1_000_000_000


@dataclass(frozen=True)
class _Row:
    """A row: its line in the file, the picture, and its label and split as written."""

    line: int
    path: Path
    label: str
    split: str


def read(path: Path, split: str, size: int | None, channels: int | None = None) -> ImageDataset:
    """Read one split of the pictures that a table names.

    A column holds paths, relative to the table's folder or absolute, and another labels: whole
    numbers, or names that are numbered alphabetically. Without a header these are the first two. An
    optional column (the third one) says train, test or val; without it, pictures are split by a
    hash of their paths. Pictures are decoded as `decode` describes.
    """
    load_pillow()
    rows, has_splits = _rows(path)
    written = [row.label for row in rows]
    numbered = all(label.removeprefix("-").isdecimal() and label.isascii() for label in written)
    classes, labels = (_numbered if numbered else _named)(path, written)
    check_several(classes, str(path))
    if has_splits:
        splits = {row.split for row in rows}
        if (wanted := find_split(splits, split)) is None:
            raise InputError(f"{path} has no images for {split}, but for {', '.join(sorted(splits))}: add some.")
        index = torch.tensor([row.split == wanted for row in rows], dtype=torch.bool).nonzero()[:, 0]
    else:
        keys = [row.path.as_posix() for row in rows]
        index = hash_split(keys, split, str(path), "add a column split of train and test for another split")
    pictures = PictureFiles(tuple(path.parent / row.path for row in rows))
    images = encoded_images(
        path.stem, split, pictures, labels[index], index, classes, where=str(path), size=size, channels=channels
    )
    return replace(images, numbered=numbered)


def _rows(path: Path) -> tuple[list[_Row], bool]:
    """Return the rows of a table, and whether it has a column of splits."""
    lines = _lines(path)
    if lines and any(cell.lower().endswith(SUFFIXES) for cell in lines[0][1]):
        columns = [0, 1, *([2] if len(lines[0][1]) > 2 else [])]
    else:
        columns = _header(lines.pop(0)[1], path) if lines else []
    if not lines:
        raise InputError(f"{path} has no rows, expected the path and the label of a picture in each.")
    rows = [_row(path, line, cells, columns) for line, cells in lines]
    lines_of = dict[Path, int]()
    for row in rows:
        if (first := lines_of.setdefault(row.path, row.line)) != row.line:
            raise InputError(f"Lines {first} and {row.line} of {path} name the same picture {row.path}: remove one.")
    return rows, len(columns) > 2


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """Return the lines that are not empty with their numbers; commas, semicolons or tabs separate their cells."""
    try:
        check_regular(path, MOST_BYTES)
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        reader = csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=first.count), strict=True)
        found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except FileNotFoundError:
        raise InputError(f"There is no file {path}: check the path, and give it with --data.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a table in UTF-8 ({error}): save it again as CSV.") from None
    return [(line, cells) for line, cells in found if any(cells)]


def _header(names: Sequence[str], path: Path) -> list[int]:
    """Return the columns of paths, labels and, if there is one, splits."""
    where = f"The header of {path}"
    found = []
    for usual, what in ((PATHS, "paths"), (LABELS, "labels"), (SPLITS, "splits")):
        name = find_column(names, usual, what, where)
        if name is None and usual is not SPLITS:
            raise no_column(names, usual, what, where)
        found += [] if name is None else [names.index(name)]
    return found


def _row(path: Path, line: int, cells: Sequence[str], columns: Sequence[int]) -> _Row:
    where = f"Line {line} of {path}"
    if len(cells) <= max(columns):
        raise InputError(f"{where} has {len(cells)} columns, expected {max(columns) + 1}: complete it.")
    picture, label, *splits = (cells[column] for column in columns)
    if not label:
        raise InputError(f"{where} has no label: complete or remove it.")
    if splits and not is_split(splits[0]):
        raise InputError(f"{where} has the split {splits[0]!r}, expected train, test or val: correct it.")
    if not (path.parent / picture).is_file():
        raise InputError(f"{where} names {picture or 'no file'}, which is not in {path.parent}: correct or remove it.")
    if not picture.lower().endswith(SUFFIXES):
        raise InputError(f"{where} names {picture}, expected a picture, which ends in {', '.join(SUFFIXES)}.")
    return _Row(line, Path(picture), label, splits[0].lower() if splits else "")


def _numbered(path: Path, labels: Sequence[str]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return the classes of labels that are whole numbers, and the class number of each row."""
    numbers = torch.tensor([min(int(label), 2**62) for label in labels], dtype=torch.int64)
    try:
        return numbered_classes(numbers), numbers
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _named(path: Path, labels: Sequence[str]) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return the classes of labels that are names, and the class number of each row."""
    _check_no_floats(path, labels)
    classes = tuple(sorted(set(labels)))
    number = {name: row for row, name in enumerate(classes)}
    return classes, torch.tensor([number[label] for label in labels])


def _check_no_floats(path: Path, labels: Sequence[str]) -> None:
    try:
        values = [float(label) for label in labels]
    except ValueError:
        return
    raise InputError(f"{path} has labels such as {values[0]}, expected whole numbers or names: write {values[0]:.0f}.")
