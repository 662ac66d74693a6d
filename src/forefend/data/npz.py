"""Images and labels in a numpy archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forefend.checks import InputError
from forefend.data.dataset import ImageDataset, from_tensors, numbered_classes
from forefend.runtime.files import check_regular

Arrays = Mapping[str, NDArray[Any]]


def read(path: Path, split: str) -> ImageDataset:
    """Read one split of `x_train`, `y_train`, `x_test`, `y_test`, or `x` and `y`, the test images.

    Images are `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)` with C 1 or 3, uint8 or floats in
    [0, 1]. Labels are `(N,)` or `(N, 1)` integers. An optional array `classes` names the classes.
    """
    arrays = _arrays(path, split)
    x, y = _pair(path, arrays, split)
    labels = _labels(path, y)
    # Over both splits: the test split may lack a class of the training split.
    all_labels = torch.cat([_labels(path, arrays[key]) for key in arrays if key.startswith("y")])
    try:
        named = "classes" in arrays
        classes = tuple(map(str, arrays["classes"].tolist())) if named else numbered_classes(all_labels)
        return from_tensors(path.stem, _channels_first(x), labels, classes=classes, split=split)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _arrays(path: Path, split: str) -> Arrays:
    wanted = {"x", "y", f"x_{split}", "y_train", "y_test", "classes"}
    try:
        check_regular(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files if key in wanted}
    except FileNotFoundError:
        raise InputError(f"There is no file {path}.") from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged archive raises zip, zlib, value or type errors
        raise InputError(f"{path} is not a readable .npz of plain arrays ({error}).") from None


def _pair(path: Path, arrays: Arrays, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    for x, y in ((f"x_{split}", f"y_{split}"), ("x", "y")):
        if x in arrays and y in arrays:
            if (x, split) == ("x", "train"):
                raise InputError(
                    f"{path} holds only x and y, which are read as test images: "
                    "name the training images x_train and y_train."
                )
            return arrays[x], arrays[y]
    raise InputError(f"{path} holds no arrays x_{split} and y_{split}: save the images and labels under these names.")


def _channels_first(x: NDArray[Any]) -> NDArray[Any]:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4:
        first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
        if first != last:
            return x if first else x.transpose(0, 3, 1, 2)
    raise InputError(
        f"The images have shape {x.shape}, expected (N, C, H, W) or (N, H, W, C) with C 1 or 3, and only one of "
        "the two possible."
    )


def _labels(path: Path, y: NDArray[Any]) -> Tensor:
    if y.dtype.kind not in "iu" or y.size != len(y if y.ndim else ()):
        raise InputError(f"{path} holds labels {y.dtype} of shape {y.shape}, expected integers of shape (N,).")
    return torch.from_numpy(y.reshape(-1).astype(np.int64))
