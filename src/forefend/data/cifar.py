"""CIFAR-10 and CIFAR-100, from the published python batches, without running anything these may ask for.

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


# The set → the key of its labels in a batch, and the names of its classes.
_FORM = {"cifar-10": ("labels", CIFAR10), "cifar-100": ("fine_labels", CIFAR100)}


def read(name: str, split: str, paths: Sequence[Path]) -> ImageDataset:
    """One split, 3x32x32.

    Args:
        name: "cifar-10" or "cifar-100" (the hundred fine classes).
        split: "train" or "test".
        paths: the batches, in their published order.

    Raises:
        InputError: a file is not a CIFAR batch.
    """
    key, classes = _FORM[name]
    batches = [read_batch(path, key) for path in paths]
    pixels = torch.from_numpy(np.concatenate([pixels for pixels, _ in batches]))
    y = torch.tensor([label for _, labels in batches for label in labels])
    return InMemoryDataset(name, split, pixels.reshape(-1, 3, 32, 32), y, torch.arange(len(y)), classes)


def read_batch(path: Path, key: str) -> tuple[NDArray[np.uint8], list[int]]:
    """The pixels `(N, 3072)` and the N labels of one batch.

    Args:
        path: the file.
        key: what the labels are called in it: "labels" or "fine_labels".

    Raises:
        InputError: the file is not a CIFAR batch; nothing that it asks to run has been run.
    """
    try:
        content = _BatchReader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{path} is not a CIFAR batch: {error}") from None
    except Exception as error:  # a damaged pickle may raise anything at all, says its documentation
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
    """Keys are bytes where Python 2 wrote the file."""
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


@final
class _Kind:
    """Stands in for numpy's dtype while unpickling: remembers which number type was named."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = _text(code)

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment say nothing about single bytes."""


@final
class _Array:
    """Stands in for numpy's array while unpickling: accepts plain 8-bit numbers and nothing else."""

    pixels: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        if not isinstance(kind, _Kind) or kind.code != "u1" or not isinstance(raw, bytes):
            raise InputError("it holds an array that is not of 8-bit numbers.")
        self.pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


# All that a pickled array names, in the spelling of numpy 1 and 2; no file reaches numpy's own.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
}


@final
class _BatchReader(pickle.Unpickler):
    """Finds stand-ins, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise InputError(f"it asks for {module}.{name}, which no batch needs and which was not run.")
        return _STAND_INS[module, name]
