"""A torch Dataset or DataLoader, read once into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, default_collate

from forefend.checks import InputError
from forefend.data.columns import IMAGES, LABELS, find_column, no_column
from forefend.data.image_file import from_pil
from forefend.data.memory import check_memory

PAIRS = "pairs (image, label), or dictionaries with image and label"


def read(given: Any, size: int | None, channels: int | None) -> tuple[Tensor, Tensor]:
    """Return all images and labels of a Dataset or DataLoader.

    A loader that shuffles is read in the order of its dataset, so that the index of an image is its
    position there, in every run. Items are pairs or dictionaries; Pillow images are converted to
    uint8, and those of several sizes are resized and cropped to `size`. Floats that are 8-bit
    pixels divided by 255 are kept as uint8, which changes no value.

    Raises:
        InputError: items are not pairs of an image of one size and a label, or take more memory
            than there is.
    """
    loader = _in_order(given, _Collate(size, channels))
    images, labels, where = list[Tensor](), list[Tensor](), f"The images of the {type(given).__name__}"
    try:
        with torch.random.fork_rng(devices=[]):  # a loader draws a seed for its workers
            for batch in loader:
                x, y = (torch.as_tensor(part) for part in _pair(batch, f"The {type(given).__name__}"))
                x = _as_bytes(x)
                if not images:
                    check_memory(_count(loader) * x[:1].nbytes, where, "give fewer, or a folder of pictures instead")
                images.append(x)
                labels.append(y)
    except InputError:
        raise
    except (TypeError, RuntimeError) as error:
        raise InputError(
            f"The images cannot be read in batches ({str(error).splitlines()[0]}): the dataset must return pairs of an "
            "image of one size, as a tensor in [0, 1], and an integer label."
        ) from error
    if not images:
        raise InputError("The DataLoader is empty, expected at least one image.")
    return _joined(images), torch.cat(labels)


class _Collate:
    """Makes a batch of items that torch's own function would refuse: Pillow images."""

    def __init__(self, size: int | None, channels: int | None) -> None:
        self.size, self.channels = size, channels

    def __call__(self, items: Sequence[Any]) -> Any:
        pairs = [_pair(item, "The dataset") for item in items]
        images = [self._image(image) for image, _ in pairs]
        sizes = sorted({tuple(image.shape[-2:]) for image in images if isinstance(image, Tensor)})
        if len(sizes) > 1:
            shown = " and ".join("x".join(map(str, sides)) for sides in (sizes[0], sizes[-1]))
            raise InputError(
                f"The dataset has images of several sizes, such as {shown}, expected one size: resize them in its "
                "transform, or give Pillow images and size=224 to forefend.data.as_image_dataset."
            )
        return default_collate(images), default_collate([label for _, label in pairs])

    def _image(self, image: Any) -> Any:
        if not hasattr(image, "getbands"):
            return torch.from_numpy(image) if isinstance(image, np.ndarray) and image.dtype != object else image
        channels = self.channels or (1 if image.mode in ("1", "L") else 3)
        return from_pil(image.copy(), self.size, channels, "A Pillow image")


def _in_order(given: Any, collate: _Collate) -> Iterable[Any]:
    """Return a loader of a dataset, or a loader like `given` whose sampler does not shuffle."""
    if not isinstance(given, DataLoader):
        return DataLoader(given, batch_size=64, collate_fn=collate)
    if given.batch_size is None:
        return given
    own = given.collate_fn
    in_order = isinstance(given.sampler, SequentialSampler | RandomSampler)
    if not in_order and own is not default_collate:
        return given
    return DataLoader(
        given.dataset,
        given.batch_size,
        sampler=None if in_order or isinstance(given.dataset, torch.utils.data.IterableDataset) else given.sampler,
        num_workers=given.num_workers,
        collate_fn=collate if own is default_collate else own,
        worker_init_fn=given.worker_init_fn,
        drop_last=given.drop_last and not in_order,
    )


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    """Return image and label of an item, or images and labels of a batch."""
    if isinstance(item, Mapping):
        found = []
        for usual, what in ((IMAGES, "images"), (LABELS, "labels")):
            name = find_column(map(str, item), usual, what, where)
            if name is None:
                raise no_column(map(str, item), usual, what, where)
            found.append(item[name])
        return found[0], found[1]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise InputError(f"{where} returns a {type(item).__name__}, expected {PAIRS}.")
    return item[0], item[1]


def _count(loader: Iterable[Any]) -> int:
    """Return the number of images, or 0 if it is unknown."""
    try:
        return len(loader.sampler)  # type: ignore[attr-defined]
    except (TypeError, AttributeError):
        return 0


def _as_bytes(x: Tensor) -> Tensor:
    """Return float32 images as uint8 if they are exactly uint8 divided by 255."""
    if x.dtype != torch.float32 or not bool((x.min() >= 0) & (x.max() <= 1)):
        return x
    pixels = (x * 255).round().to(torch.uint8)
    return pixels if torch.equal(pixels.float().div_(255), x) else x


def _joined(parts: list[Tensor]) -> Tensor:
    """Join batches into one tensor, freeing each; floats if one of them is not uint8."""
    if len({part.dtype for part in parts}) > 1:
        parts[:] = [part.float().div_(255) if part.dtype == torch.uint8 else part for part in parts]
    if len({part.shape[1:] for part in parts}) > 1:
        return torch.cat(parts)  # raises what differs
    pixels, start = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:]), 0
    for number, part in enumerate(parts):
        pixels[start : start + len(part)] = part
        start += len(part)
        parts[number] = part[:0].clone()
    return pixels
