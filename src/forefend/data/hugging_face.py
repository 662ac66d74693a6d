"""Data sets of Hugging Face's `datasets`, on disk or in Python; nothing is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from forefend.checks import InputError, check_labels, import_extra
from forefend.data import torch_dataset
from forefend.data.columns import IMAGES, LABELS, find_column, no_column, several_columns
from forefend.data.dataset import (
    Classes,
    ImageDataset,
    check_several,
    from_tensors,
    numbered_classes,
    preferred,
    resolve_classes,
)
from forefend.data.encoded_images import encoded_images
from forefend.data.memory import check_memory
from forefend.data.splits import find_split, hash_split


def is_saved(path: Path) -> bool:
    """Return whether `save_to_disk` wrote a folder."""
    return any((path / name).is_file() for name in ("dataset_dict.json", "state.json"))


def is_dataset(given: object) -> bool:
    """Return whether an object is a Dataset or DatasetDict of the library, which is not imported for it."""
    library: Any = sys.modules.get("datasets")
    return library is not None and isinstance(given, library.Dataset | library.DatasetDict)


def read(path: Path, split: str, size: int | None, channels: int | None) -> ImageDataset:
    """Read one split of a folder that `save_to_disk` wrote.

    A set saved without splits is split by a hash of the row numbers.
    """
    library = import_extra("datasets", f"The Hugging Face data set {path}", "datasets")
    try:
        found = library.load_from_disk(str(path))
    except Exception as error:  # damaged folders raise operating system, key, value or Arrow errors
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is not a readable Hugging Face data set ({reason}): save it again.") from None
    name, where = path.resolve().name, str(path)
    if isinstance(found, Mapping):
        return read_object(found, name, split, size, channels, where=where)
    own = str(found.split or "")
    if find_split([own], split):
        return read_object(found, name, split, size, channels, where=where)
    if any(find_split([own], other) for other in ("train", "test")):
        raise InputError(f"{path} holds the split {own} alone, expected {split}: save a DatasetDict of both.")
    rows = hash_split([str(row) for row in range(len(found))], split, where, "save a DatasetDict of both")
    return read_object(found, name, split, size, channels, where=where).subset(rows)


def read_object(
    given: Any,
    name: str,
    split: str,
    size: int | None,
    channels: int | None,
    *,
    classes: Classes = None,
    where: str = "The Dataset",
) -> ImageDataset:
    """Return a Dataset, or the split of a DatasetDict, as an ImageDataset.

    Images are decoded in batches, as `decode` describes, and arrays are read into memory. A number
    or names of `classes` take precedence over the names in the table, and those over a function.

    Raises:
        InputError: the split or a column is missing or ambiguous, or labels are no class numbers.
    """
    tables = dict(given) if isinstance(given, Mapping) else {split: given}
    chosen = find_split(tables, split)
    if chosen is None:
        raise InputError(f"{where} has the splits {', '.join(tables)}, expected {split}: rename one, or choose it.")
    if tables[chosen].format["type"] == "custom":  # the user's own transform
        pairs = torch_dataset.read(DataLoader(tables[chosen], batch_size=64), size, channels)
        return from_tensors(name, *pairs, classes=preferred(classes, class_names(tables[chosen])), split=split)
    tables = {name: table.with_format(None) for name, table in tables.items()}
    table = tables[chosen]
    column = _column(table.features, "Image", IMAGES, "images", where)
    label = _column(table.features, "ClassLabel", LABELS, "labels", where)
    names, numbers = _labels(tables, label, where)
    labels, classes = numbers[chosen], preferred(classes, names)
    numbered = classes is None
    if classes is None:
        classes = numbered_classes(torch.cat(list(numbers.values())))
        check_several(classes, where)
    if type(table.features[column]).__name__ != "Image":
        needed = len(table) * np.asarray(table[0][column]).size * 4 if len(table) else 0
        check_memory(needed, where, "save the images as pictures")
        pixels = table.select_columns([column]).with_format("numpy")[:][column]
        return replace(from_tensors(name, pixels, labels, classes=classes, split=split), numbered=numbered)
    feature = import_extra("datasets", "A Hugging Face data set", "datasets").Image(decode=False)
    pictures = _Column(table.select_columns([column]).cast_column(column, feature), column, where)
    index, counted = torch.arange(len(labels)), tuple(map(str, range(max([*labels.tolist(), 0]) + 1)))
    held = classes if isinstance(classes, tuple) else counted
    images = encoded_images(name, split, pictures, labels, index, held, where=where, size=size, channels=channels)
    named = resolve_classes(classes, labels, lambda: images.batch(index[:2])[0])
    check_labels(labels, len(named))
    return replace(images, classes=named, numbered=numbered)


def class_names(table: Any) -> tuple[str, ...]:
    """Return the names in the only column of class labels; none without it."""
    found = [feature.names for feature in table.features.values() if type(feature).__name__ == "ClassLabel"]
    return tuple(found[0]) if len(found) == 1 else ()


@final
@dataclass(frozen=True)
class _Column:
    """The encoded pictures of a column."""

    table: Any
    name: str
    where: str

    def title(self, row: int) -> str:
        """What messages call the picture."""
        return f"Image {row} of {self.where}"

    def encoded(self, row: int) -> Path | bytes:
        """The content of the picture, or its path where the table holds that."""
        found = self.table[row][self.name] or {}
        if found.get("bytes") is not None:
            return bytes(found["bytes"])
        if not found.get("path"):
            raise InputError(f"{self.title(row)} is missing: remove the row.")
        return Path(found["path"])


def _column(features: Mapping[str, Any], kind: str, usual: Sequence[str], what: str, where: str) -> str:
    """Return the column of a usual name, or the only one of a kind."""
    found = find_column(features, usual, what, where)
    if found is not None:
        return found
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if len(of_kind) > 1:
        raise several_columns(of_kind, what, where)
    if not of_kind:
        raise no_column(features, usual, what, where)
    return of_kind[0]


def _labels(tables: Mapping[str, Any], label: str, where: str) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the names of the classes, if they have some, and the class numbers of each split that has labels."""
    values = {split: list(table[label]) for split, table in tables.items() if label in table.features}
    feature = next(table.features[label] for table in tables.values() if label in table.features)
    seen = {type(value) for found in values.values() for value in found}
    if not seen <= {int} and not seen <= {str}:
        kinds = ", ".join(sorted(kind.__name__ for kind in seen))
        raise InputError(f"{where} has labels of type {kinds} in {label}, expected whole numbers or names.")
    names = tuple(getattr(feature, "names", ()))
    if seen == {str}:
        names = tuple(sorted({value for found in values.values() for value in found}))
        number = {name: row for row, name in enumerate(names)}
        values = {split: [number[value] for value in found] for split, found in values.items()}
    check_several(names, where)
    return names, {split: torch.tensor(found, dtype=torch.int64) for split, found in values.items()}
