"""CIFAR-10 and CIFAR-100 from the published batches, unpickled without running their code.

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
    """Read one split of CIFAR-10 or CIFAR-100 (fine classes), 3x32x32, from its batches."""
    key, classes = _LABELS_AND_CLASSES[name]
    batches = [read_batch(path, key) for path in paths]
    pixels = torch.from_numpy(np.concatenate([pixels for pixels, _ in batches]))
    y = torch.tensor([label for _, labels in batches for label in labels])
    return InMemoryDataset(name, split, pixels.reshape(-1, 3, 32, 32), y, torch.arange(len(y)), classes)


def read_batch(path: Path, key: str) -> tuple[NDArray[np.uint8], list[int]]:
    """Return the pixels `(N, 3072)` and the labels, stored as `key`, of one batch."""
    try:
        content: Any = _BatchReader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{path} is not a CIFAR batch: {error}") from None
    except Exception as error:  # a damaged pickle may raise any exception, by the documentation
        raise InputError(f"{path} is not a CIFAR batch: it cannot be unpickled ({type(error).__name__}).") from None
    named = (
        {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in content.items()}
        if isinstance(content, dict)
        else {}
    )
    pixels: Any = named.get("data")
    labels: Any = named.get(key)
    integers = isinstance(labels, list) and all(type(y) is int for y in labels)
    if not integers or not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise InputError(f"{path} is not a CIFAR batch: expected a dictionary with 8-bit 'data' and a list {key!r}.")
    if pixels.shape != (len(labels), 3 * 32 * 32):
        raise InputError(
            f"{path} is not a CIFAR batch: its data has shape {pixels.shape}, expected ({len(labels)}, 3072)."
        )
    return pixels, labels


# All names in a pickled array, as numpy 1 and 2 write them.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


@final
class _BatchReader(pickle.Unpickler):
    """Unpickles arrays and plain values only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(f"it refers to {module}.{name}, which was not run.")
        return _ALLOWED[module, name]
