"""The published corrupted test sets CIFAR-10-C, CIFAR-100-C and ImageNet-C.

CIFAR-10-C is a folder of `<corruption>.npy` and `labels.npy`. ImageNet-C is
`<corruption>/<severity>/<class>/*.jpeg`, where each group of corruptions (noise, blur, weather,
digital, extra) may have a folder of its own.

Source: Hendrycks and Dietterich, 1903.12261.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from forefend.checks import InputError, unknown_name
from forefend.data.cifar import CIFAR10, CIFAR100
from forefend.data.corruptions.severity import SEVERITIES, check_severity
from forefend.data.dataset import ImageDataset, InMemoryDataset, check_bytes, numbered_classes
from forefend.data.image_folder import is_hidden, read_classes
from forefend.runtime.files import check_regular

PUBLISHED = 10_000  # images of CIFAR-10-C and CIFAR-100-C at each severity
Array = NDArray[Any]


def corruptions(root: Path) -> tuple[str, ...]:
    """Return the names of the corruptions in the folder of a published set, sorted."""
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
    """Read the test images of one corruption at one severity, in the order of the clean test set.

    An array may have other than the published 50,000 rows: a fifth of them is one severity, and the
    name of the dataset then contains their number. `classes` None takes those of CIFAR-10, of
    CIFAR-100 where a label exceeds 9, and the sorted folders for ImageNet-C. ImageNet-C needs a
    `size` in pixels, published as 224.
    """
    known = corruptions(root)
    if corruption not in known:
        raise unknown_name(corruption, known, f"corruption in {root}")
    check_severity(severity)
    paths = _arrays(root)
    if not paths:
        home = _folders(root)[corruption] / str(severity)
        return read_classes(root.resolve().name, "test", home, classes, size)
    if size is not None:
        raise InputError(f"The size is {size}, expected none: only a folder of images needs one, not {root}.")
    return _read_array(paths[corruption], severity, classes)


def _arrays(root: Path) -> dict[str, Path]:
    return {path.stem: path for path in root.glob("*.npy") if path.stem != "labels" and path.name[0] != "."}


def _folders(root: Path) -> dict[str, Path]:
    # The folders, at most two levels down, that contain severities.
    found = [path.parent for depth in ("*/[1-5]", "*/*/[1-5]") for path in root.glob(depth) if path.is_dir()]
    return {path.name: path for path in found if not any(map(is_hidden, path.relative_to(root).parts))}


def _read_array(path: Path, severity: int, classes: Sequence[str] | None) -> ImageDataset:
    images, y = _load(path), _load(path.parent / "labels.npy")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (32, 32, 3) or not len(images):
        raise InputError(f"{path} holds {images.dtype} of shape {images.shape}, expected uint8 (50000, 32, 32, 3).")
    count, rest = divmod(len(images), len(SEVERITIES))
    if rest:
        raise InputError(f"{path} holds {len(images)} images, expected five severities of equal length.")
    if y.dtype.kind not in "iu" or y.shape != (len(images),):
        raise InputError(
            f"{path.parent / 'labels.npy'} holds {y.dtype} of shape {y.shape}, expected integers ({len(images)},), "
            f"one for each image of {path.name}."
        )
    rows = slice((severity - 1) * count, severity * count)
    numbers = torch.from_numpy(np.array(y, dtype=np.int64))
    names = tuple(classes) if classes is not None else (CIFAR100 if len(numbered_classes(numbers)) > 10 else CIFAR10)
    pixels = torch.from_numpy(np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)))
    check_bytes(pixels)
    labels = numbers[rows]
    name = path.parent.resolve().name + ("" if count == PUBLISHED else f" ({count} of {PUBLISHED})")
    return InMemoryDataset(name, "test", pixels, labels, torch.arange(count), names)


def _load(path: Path) -> Array:
    try:
        check_regular(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # rows stay on disk until they are read
    except FileNotFoundError:
        raise InputError(f"There is no {path}, which belongs to the published set: unpack it again.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file raises value, type, end-of-file or operating system errors
        raise InputError(f"{path} is not a readable .npy of numbers ({error}): unpack it again.") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path} is an archive of several arrays, expected one array: unpack the set again.")
    return array
