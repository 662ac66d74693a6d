"""CIFAR-10 and CIFAR-100 from the published python batches, unpickled without running code of the file.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from forefend.checks import InputError
from forefend.data.dataset import ImageDataset, InMemoryDataset

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_HUNDRED = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
CIFAR100 = tuple(_HUNDRED.split())
# For each set, the key of the labels in a batch, and the names of the classes.
_LABELS_AND_CLASSES = {"cifar-10": ("labels", CIFAR10), "cifar-100": ("fine_labels", CIFAR100)}


def read(name: str, split: str, paths: Sequence[Path]) -> ImageDataset:
    """Read one split, 3x32x32.

    Args:
        name: "cifar-10" or "cifar-100" (the hundred fine classes).
        split: "train" or "test".
        paths: the batches, in their published order.

    Raises:
        InputError: a file is not a CIFAR batch.
    """
    key, classes = _LABELS_AND_CLASSES[name]
    batches = [read_batch(path, key) for path in paths]
    pixels = torch.from_numpy(np.concatenate([pixels for pixels, _ in batches]))
    y = torch.tensor([label for _, labels in batches for label in labels])
    return InMemoryDataset(name, split, pixels.reshape(-1, 3, 32, 32), y, torch.arange(len(y)), classes)


def read_batch(path: Path, key: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the pixels `(N, 3072)` and the N labels of one batch.

    Args:
        path: the file.
        key: the key of the labels: "labels" or "fine_labels".

    Raises:
        InputError: the file is not a CIFAR batch; no code of it was run.
    """
    try:
        content = _BatchReader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{path} is not a CIFAR batch: {error}") from None
    except Exception as error:  # a damaged pickle may raise any exception, by the documentation
        raise InputError(f"{path} is not a CIFAR batch: it cannot be unpickled ({type(error).__name__}).") from None
    named = {_text(k): v for k, v in content.items()} if isinstance(content, dict) else {}
    held, labels = named.get("data"), named.get(key)
    if not isinstance(held, _Array) or not isinstance(labels, list) or not all(type(y) is int for y in labels):
        raise InputError(f"{path} is not a CIFAR batch: expected a dictionary with 8-bit 'data' and a list {key!r}.")
    if held.pixels.shape != (len(labels), 3 * 32 * 32):
        raise InputError(
            f"{path} is not a CIFAR batch: its data has shape {held.pixels.shape}, expected ({len(labels)}, 3072)."
        )
    return held.pixels, labels


def _text(key: Any) -> str:
    # Keys are bytes where Python 2 wrote the file.
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


@final
class _DType:
    """Replaces numpy's dtype during unpickling, and stores only its code."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = _text(code)

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and alignment, which do not matter for single bytes."""


@final
class _Array:
    """Replaces numpy's array during unpickling, and accepts only 8-bit numbers."""

    pixels: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _DType) or kind.code != "u1" or not isinstance(raw, bytes):
            raise InputError("it holds an array that is not of 8-bit numbers.")
        self.pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


# All names that a pickled array contains, of numpy 1 and 2; a file never reaches numpy itself.
_REPLACEMENTS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}


@final
class _BatchReader(pickle.Unpickler):
    """Resolves only the names of `_REPLACEMENTS`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _REPLACEMENTS:
            raise InputError(f"it refers to {module}.{name}, which was not run.")
        return _REPLACEMENTS[module, name]
