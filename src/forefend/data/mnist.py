"""MNIST and Fashion-MNIST in the idx format, compressed or not.

Source: LeCun et al., http://yann.lecun.com/exdb/mnist; Xiao et al., arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.data.dataset import ImageDataset, InMemoryDataset

CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}


def read(name: str, split: str, paths: Sequence[Path]) -> ImageDataset:
    """Read one split, 1xHxW, from its file of images and its file of labels."""
    images, labels = paths
    pixels, y = read_idx(images, rank=3), read_idx(labels, rank=1)
    if len(pixels) != len(y):
        raise InputError(
            f"{images} holds {len(pixels)} images but {labels.name} holds {len(y)} labels: "
            "they are not of the same split; download both again."
        )
    return InMemoryDataset(name, split, pixels.unsqueeze(1), y.long(), torch.arange(len(y)), CLASSES[name])


def read_idx(path: Path, *, rank: int) -> Tensor:
    """Return the uint8 array of an idx file; a name that ends in .gz is decompressed."""
    content = _content(path)
    # Two zero bytes, 8 for "unsigned byte", the rank, then each length as a big-endian 32-bit
    # number.
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < 4 + 4 * rank:
        raise InputError(
            f"{path} is not an idx file of rank {rank}: it starts with {content[:4].hex(' ') or 'nothing'}, "
            f"expected 00 00 08 {rank:02x}."
        )
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    held = len(content) - 4 - 4 * rank
    if held != math.prod(shape):
        raise InputError(
            f"{path} holds {held} values, expected {' x '.join(map(str, shape))} by its header: download it again."
        )
    return torch.from_numpy(np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * rank).reshape(shape))


def _content(path: Path) -> bytes:
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): download it again.") from None
