"""The published corrupted test sets, read where they lie: CIFAR-10-C, CIFAR-100-C and ImageNet-C.

CIFAR-10-C is a folder of `<corruption>.npy` and `labels.npy`; ImageNet-C is `<corruption>/<severity>/<class>/*.jpeg`,
all of it or each of its groups (noise, blur, weather, digital, extra) in a folder of its own.

Source: Hendrycks and Dietterich, 1903.12261.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forefend.checks import InputError, unknown_name
from forefend.data.cifar import CIFAR10, CIFAR100
from forefend.data.dataset import ImageDataset, InMemoryDataset
from forefend.data.image_folder import SUFFIXES, ImageFolder

SEVERITIES = (1, 2, 3, 4, 5)
PUBLISHED = 10_000  # CIFAR-10-C's and CIFAR-100-C's images at each severity
Array = NDArray[Any]


def corruptions(root: Path) -> tuple[str, ...]:
    """The names of the corruptions that a published set holds, in alphabetical order.

    Args:
        root: the set's folder.

    Raises:
        InputError: no such folder, or nothing of the kind in it.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: expected CIFAR-10-C, CIFAR-100-C or ImageNet-C, unpacked.")
    names = sorted(_arrays(root) or _folders(root))
    if not names:
        raise InputError(
            f"{root} holds no corrupted images: expected <corruption>.npy and labels.npy, or folders "
            "<corruption>/<severity>/<class>."
        )
    return tuple(names)


def read(
    root: Path, corruption: str, severity: int, *, classes: Sequence[str] | None = None, size: int | None = None
) -> ImageDataset:
    """The test images of one corruption at one severity, in the order of the clean test set.

    An array need not have the published 50,000 rows: any number that five divides is five severities one after the
    other, and the images' name then says how many they are.

    Args:
        root: the set's folder.
        corruption: one of `corruptions(root)`.
        severity: 1, 2, 3, 4 or 5.
        classes: names of the classes in the order of their numbers; None takes CIFAR's own, the hundred where a label
            exceeds 9, and for pictures the folders in alphabetical order.
        size: height and width for pictures, 224 as published; None for arrays.

    Raises:
        InputError: no such corruption or severity, or files that are absent, damaged or of another form.
    """
    known = corruptions(root)
    if corruption not in known:
        raise unknown_name(corruption, known, f"corruption in {root}")
    if severity not in SEVERITIES:
        raise InputError(f"The severity is {severity}, expected a whole number from 1 to 5.")
    if paths := _arrays(root):
        if size is not None:
            raise InputError(f"A size ({size}) is for folders of pictures; the images of {root} have their own.")
        return _of_array(paths[corruption], severity, classes)
    if size is None or size < 1:
        raise InputError(f"The size of the pictures in {root} is {size}: give one in pixels, such as --size 224.")
    return _of_folder(root, _folders(root)[corruption] / str(severity), classes, size)


def _arrays(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in root.glob("*.npy") if path.stem != "labels" and path.name[0] != "."}


def _folders(root: Path) -> dict[str, Path]:
    """Corruptions of a folder of pictures: those folders, at most two down, that hold severities."""
    found = [path.parent for depth in ("*/[1-5]", "*/*/[1-5]") for path in root.glob(depth) if path.is_dir()]
    return {path.name: path for path in found if path.name[0] != "."}


def _of_array(path: Path, severity: int, classes: Sequence[str] | None) -> ImageDataset:
    images, y = _load(path), _load(path.parent / "labels.npy")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3) or not len(images):
        raise InputError(f"{path} holds {images.dtype} of shape {images.shape}, expected uint8 (50000, 32, 32, 3).")
    if len(images) % 5:
        raise InputError(f"{path} holds {len(images)} images, which are no five severities of equal length.")
    if y.dtype.kind not in "iu" or y.shape != (len(images),):
        raise InputError(
            f"{path.parent / 'labels.npy'} holds {y.dtype} of shape {y.shape}, expected whole numbers "
            f"({len(images)},), one for each image of {path.name}."
        )
    count = len(images) // 5
    rows = slice((severity - 1) * count, severity * count)
    names = tuple(classes) if classes is not None else (CIFAR100 if int(y.max()) > 9 else CIFAR10)
    pixels = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))
    name = path.parent.resolve().name + ("" if count == PUBLISHED else f" ({count} of {PUBLISHED})")
    return InMemoryDataset(name, "test", pixels, _labels(y[rows]), torch.arange(count), names)


def _load(path: Path) -> Array:
    """An array that stays on disk until its rows are asked for."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"There is no {path}: it belongs to the published set, beside its images.") from None
    except Exception as error:  # a damaged file raises value, type, end-of-file or operating system errors
        raise InputError(f"{path} is not a readable .npy of plain numbers ({error}): unpack it anew.") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} is an archive of several arrays, expected a single one: unpack the set anew.")
    return array


def _labels(y: Array) -> Tensor:
    return torch.from_numpy(np.array(y, dtype=np.int64))


def _of_folder(root: Path, home: Path, classes: Sequence[str] | None, size: int) -> ImageDataset:
    held = sorted(entry.name for entry in home.glob("*") if entry.is_dir() and entry.name[0] != ".")
    names = tuple(classes) if classes is not None else tuple(held)
    if stray := sorted(set(held) - set(names)):
        raise InputError(f"{home} has the class {stray[0]!r}, which the data set lacks: classes must agree.")
    files = [
        (file, names.index(name))
        for name in held
        for file in sorted((home / name).iterdir())
        if file.suffix.lower() in SUFFIXES and file.name[0] != "."
    ]
    if not files:
        raise InputError(f"{home} holds no pictures: expected <class>/<picture>.jpeg.")
    paths, labels = tuple(file for file, _ in files), torch.tensor([y for _, y in files], dtype=torch.int64)
    return ImageFolder(root.resolve().name, "test", paths, labels, torch.arange(len(files)), names, size)
