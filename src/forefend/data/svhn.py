"""SVHN, cropped digits of Street View House Numbers, from MATLAB files.

Source: Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, NIPS
workshop 2011.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forefend.checks import InputError, import_extra
from forefend.data.dataset import ImageDataset, InMemoryDataset


def read(name: str, split: str, paths: Sequence[Path]) -> ImageDataset:
    """Read one split, 3x32x32, from its file; the published label 10 becomes the digit 0."""
    (path,) = paths
    content = _content(path)
    pixels, labels = content.get("X"), content.get("y")
    if pixels is None or labels is None or pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[2] != 3:
        raise InputError(f"{path} is not an SVHN file: expected 8-bit images X (H, W, 3, N) and labels y.")
    y = torch.from_numpy(labels.reshape(-1).astype(np.int64))
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)))
    return InMemoryDataset(name, split, x, torch.where(y == 10, 0, y), torch.arange(len(x)), tuple("0123456789"))


def _content(path: Path) -> dict[str, Any]:
    scipy_io = import_extra("scipy.io", "Reading SVHN", "data")
    try:
        content: dict[str, Any] = scipy_io.loadmat(path)
    except Exception as error:  # a damaged file raises struct, zlib, type and other errors
        raise InputError(f"{path} is not a readable MATLAB file ({type(error).__name__}): download it again.") from None
    return content
