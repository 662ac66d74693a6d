"""Images and labels in a numpy archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forefend.checks import InputError
from forefend.data.columns import find_column
from forefend.data.dataset import ImageDataset, channels_first, check_several, from_tensors, numbered_classes
from forefend.data.memory import check_memory
from forefend.data.splits import NAMES
from forefend.runtime.files import check_regular

Arrays = Mapping[str, NDArray[Any]]
# Usual names of images and labels, in lower case, of one split and of an archive without splits.
IMAGES = ("x_{}", "{}_x", "{}_images", "images_{}", "{}_data")
LABELS = ("y_{}", "{}_y", "{}_labels", "labels_{}", "{}_targets")
UNSPLIT_IMAGES, UNSPLIT_LABELS = ("x", "images", "data"), ("y", "labels", "targets")
CLASSES = ("classes", "class_names", "label_names")


def read(path: Path, split: str) -> ImageDataset:
    """Read one split of `x_train`, `y_train`, `x_test`, `y_test`, or `x` and `y`, the test images.

    Other usual names, such as `X_train`, `train_images` and `train_labels`, are known too; validation
    images are the test images of an archive that has no others. Images are `(N, H, W)`,
    `(N, C, H, W)` or `(N, H, W, C)`, with C 1 or 3 unless they are square, uint8, or floats in
    [0, 1]. Labels are `(N,)` or `(N, 1)` integers. An optional array `classes` names the classes.
    """
    try:
        check_regular(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            images, labels = _pair(path, archive.files, split)
            _check_memory(path, archive, images)
            named = find_column(archive.files, CLASSES, "class names", str(path))
            x, y = archive[images], _labels(path, archive[labels])
            classes = tuple(map(str, archive[named].tolist())) if named else _numbered(path, archive)
    except FileNotFoundError:
        raise InputError(f"There is no file {path}: check the path, and give it with --data.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged archive raises zip, zlib, value or type errors
        raise InputError(f"{path} is not a readable .npz of plain arrays ({error}).") from None
    try:
        found = from_tensors(path.stem, _checked(x), y, classes=classes, split=split)
        check_several(found.classes, "It")
        return replace(found, numbered=not named)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _pair(path: Path, names: Sequence[str], split: str) -> tuple[str, str]:
    """Return the names of images and labels of a split."""
    for part in NAMES[split]:
        x = find_column(names, [usual.format(part) for usual in IMAGES], f"{part} images", str(path))
        y = find_column(names, [usual.format(part) for usual in LABELS], f"{part} labels", str(path))
        if x and y:
            return x, y
    x = find_column(names, UNSPLIT_IMAGES, "images", str(path))
    y = find_column(names, UNSPLIT_LABELS, "labels", str(path))
    if not x or not y:
        raise InputError(
            f"{path} holds no arrays x_{split} and y_{split}, but {', '.join(names) or 'none'}: save the images and "
            "labels under these names."
        )
    if split == "train":
        raise InputError(
            f"{path} holds only {x} and {y}, which are read as test images: "
            "name the training images x_train and y_train."
        )
    return x, y


def _check_memory(path: Path, archive: Any, images: str) -> None:
    """Refuse images that do not fit into memory before they are read."""
    size = archive.zip.getinfo(f"{images}.npy").file_size
    check_memory(size, f"The images {images} of {path}", "save them as uint8, or as a folder of pictures")


def _numbered(path: Path, archive: Any) -> tuple[str, ...]:
    """Number the classes over all splits: the test split may lack a class of the training split."""
    parts = [part for names in NAMES.values() for part in names]
    usual = {*UNSPLIT_LABELS, *(name.format(part) for name in LABELS for part in parts)}
    found = [_labels(path, archive[name]) for name in archive.files if name.lower() in usual]
    try:
        return numbered_classes(torch.cat(found))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _checked(x: NDArray[Any]) -> NDArray[Any]:
    """Return images as `(N, C, H, W)`."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4:
        first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
        square = (x.shape[2] == x.shape[3]) != (x.shape[1] == x.shape[2])
        if first != last or (square and not first):
            return channels_first(x)
    raise InputError(
        f"The images have shape {x.shape}, expected (N, C, H, W) or (N, H, W, C) with C 1 or 3, or square, and "
        "only one of the two possible."
    )


def _labels(path: Path, y: NDArray[Any]) -> Tensor:
    if y.dtype.kind not in "iu" or y.size != len(y if y.ndim else ()):
        raise InputError(f"{path} holds labels {y.dtype} of shape {y.shape}, expected integers of shape (N,).")
    return torch.from_numpy(y.reshape(-1).astype(np.int64))
