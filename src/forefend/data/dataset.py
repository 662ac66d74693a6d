"""Image datasets in memory, and digests of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forefend.checks import InputError, as_labels, check_images, check_labels, is_channels_last
from forefend.data.splits import check_split
from forefend.runtime.files import is_writable

Classes = Sequence[str] | int | Callable[[Tensor], int | None] | None
MOST_CLASSES = 1_000_000  # a larger label is most likely not a class number


@runtime_checkable
class ImageDataset(Protocol):
    """Labeled images of one split, read in batches."""

    @property
    def name(self) -> str:
        """Name of the set, such as "fashion-mnist"."""

    @property
    def split(self) -> str:
        """The split: "train" or "test"."""

    @property
    def labels(self) -> Tensor:
        """Class numbers, `(N,)` int64."""

    @property
    def index(self) -> Tensor:
        """Position of each image in the published split, `(N,)` int64; subsets keep it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images at `rows`, numbers from 0 to N - 1.

        Returns:
            x, `(B, C, H, W)` float32 in [0, 1]; y, `(B,)` int64; the published index, `(B,)` int64.
        """

    def subset(self, rows: Tensor) -> ImageDataset:
        """Return a dataset of the images at `rows`, in that order; at least one."""


@final
@dataclass(frozen=True, eq=False)
class InMemoryDataset:
    """Images in one tensor, `(N, C, H, W)`, uint8 or float32 in [0, 1].

    uint8 takes a quarter of the memory of float32. Batches are on the device of `pixels`. Classes are
    `numbered` if only the labels tell how many there are.
    """

    name: str
    split: str
    pixels: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    index: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    numbered: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_set(self.name, self.split, self.classes, len(self.pixels))
        check_labels(self.labels, len(self.classes), len(self.pixels))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and published index at `rows`."""
        x = self.pixels[rows.to(self.pixels.device)]
        if x.dtype == torch.uint8:
            # CUDA would multiply by the reciprocal of a number, which rounds differently.
            x = x.float().div_(torch.full((), 255.0, device=x.device))
        return x, self.labels[rows], self.index[rows]

    def subset(self, rows: Tensor) -> InMemoryDataset:
        """Return a dataset of the images at `rows`, in that order."""
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], index=self.index[rows])


def from_tensors(
    name: str,
    x: Tensor | NDArray[Any],
    y: Tensor | NDArray[Any],
    *,
    classes: Classes = None,
    split: str = "test",
) -> InMemoryDataset:
    """Return a dataset of images and labels held in memory, on the CPU.

    Args:
        name: the name of the set in records.
        x: `(N, C, H, W)`, or `(N, H, W, C)` where only that is possible, torch or numpy, float in
            [0, 1], uint8 in 0 … 255 or bool. uint8 stays uint8 in memory.
        y: `(N,)`, integers.
        classes: names or number of the classes, or a function that tells their number by the first
            images; None numbers them 0 … max(y), and requires labels that start at 0. An evaluation
            then adds the classes that the model has more.
        split: "train" or "test"; validation images are only taken from "train".

    Raises:
        InputError: images outside [0, 1] or of the wrong type or shape, uint8 images of only 0 and
            1, labels that do not fit, or an unknown split.

    >>> images = from_tensors("mine", torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))
    >>> len(images), images.shape, images.classes
    (4, (3, 8, 8), ('0', '1'))
    """
    check_split(split)
    pixels, labels = channels_first(_as_tensor(x)), _as_tensor(y)
    if not isinstance(labels, Tensor):
        raise InputError(f"Labels must be a torch tensor or numpy array of integers, not {type(y).__name__}.")
    if not labels.is_floating_point():
        labels = labels.detach().long().cpu()
    eight_bits = getattr(pixels, "dtype", None) == torch.uint8
    check_images(pixels[:1] / 255 if eight_bits else pixels)
    if eight_bits:
        check_bytes(pixels)
    as_labels(labels, len(pixels))  # before their range: a missing label may be the only 0
    numbered = classes is None
    names = resolve_classes(classes, labels, lambda: pixels[:2] / 255 if eight_bits else pixels[:2].float())
    check_labels(labels, len(names), len(pixels))
    pixels = pixels.detach().cpu() if eight_bits else pixels.detach().float().cpu()
    return InMemoryDataset(name, split, pixels, labels, torch.arange(len(pixels)), names, numbered)


def preferred(classes: Classes, names: tuple[str, ...]) -> Classes:
    """Return the given number or names of classes, else those of the data, else a given function."""
    return classes if isinstance(classes, Sequence | int) or not names else names


def resolve_classes(classes: Classes, labels: Tensor, first: Callable[[], Tensor]) -> tuple[str, ...]:
    """Return the names of classes that are given as for `from_tensors`; `first` returns the first images."""
    if callable(classes):
        classes = classes(first())
    if classes is None:
        classes = numbered_classes(labels)
    return _numbers(classes) if isinstance(classes, int) else tuple(classes)


def channels_first(x: Any) -> Any:
    """Return images `(N, H, W, C)` as `(N, C, H, W)` where the channels can only be last; others unchanged."""
    if getattr(x, "ndim", 0) != 4 or not is_channels_last(x.shape):
        return x
    return x.permute(0, 3, 1, 2).contiguous() if isinstance(x, Tensor) else x.transpose(0, 3, 1, 2)


def _as_tensor(given: Any) -> Any:
    if isinstance(given, Tensor):
        return given.float() if given.dtype == torch.bool else given
    if not isinstance(given, np.ndarray):
        return given
    if given.dtype.kind == "b":
        given = given.astype(np.float32)
    if given.dtype.kind not in "fiub":
        raise InputError(f"An array of {given.dtype} was given, expected floats, uint8 or integers.")
    # torch refuses read-only arrays, negative strides and foreign byte order: copy these.
    return torch.from_numpy(np.require(given, given.dtype.newbyteorder("="), ["C", "W"]))


def image_digests(x: Tensor, y: Tensor) -> list[str]:
    """Return a digest of pixels and label of each image, eight hexadecimal digits, for records."""
    pairs = zip(x.cpu().contiguous(), y.tolist(), strict=True)
    return [hashlib.sha256(image.numpy().tobytes() + str(label).encode()).hexdigest()[:8] for image, label in pairs]


def dataset_digest(images: ImageDataset) -> str:
    """Return a digest of all images, labels and indices, 32 hexadecimal digits.

    A dataset on disk has a method `file_contents` that yields its files, which takes less
    time than decoding them.
    """
    words = [images.shape, images.labels.tolist(), images.index.tolist()]
    digest = hashlib.sha256(repr(words).encode())
    for part in images.file_contents() if hasattr(images, "file_contents") else _all_pixels(images):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def _all_pixels(images: ImageDataset) -> Iterator[Any]:
    for rows in torch.arange(len(images)).split(256):
        yield images.batch(rows)[0].cpu().contiguous().numpy()


def numbered_classes(y: Tensor) -> tuple[str, ...]:
    """Return the numbers from 0 to the largest label as names of the classes."""
    if not y.numel() or y.is_floating_point():
        return ("0",)
    low, high = int(y.min()), int(y.max())
    if 0 < low < high:
        raise InputError(
            f"The labels range over {low} … {high} and none is 0, expected class numbers that start at 0: renumber "
            "them, or give the names or the number of the classes: forefend.data.from_tensors(name, x, y, classes=10), "
            "the array `classes` of an .npz file, or names as the labels of a table."
        )
    return _numbers(max(high, 0) + 1)


def _numbers(classes: int) -> tuple[str, ...]:
    if classes > MOST_CLASSES:
        raise InputError(
            f"The largest class number is {classes - 1}, expected less than {MOST_CLASSES}: number the classes from 0."
        )
    return tuple(map(str, range(classes)))


def check_bytes(pixels: Tensor) -> None:
    """Refuse uint8 images whose largest value is 1: they would become almost black."""
    if int(pixels.max()) == 1:
        raise InputError(
            "The uint8 images hold only 0 and 1, expected 0 … 255: multiply them by 255, or convert them to float."
        )


def check_set(name: str, split: str, classes: Sequence[str], count: int) -> None:
    """Refuse a set without images, and names that no file or console can hold."""
    if count == 0:
        raise InputError(f"The {split} split of {name!r} holds no images, expected at least one.")
    if unwritable := next((text for text in (name, *classes) if not is_writable(text)), None):
        raise InputError(f"The name {unwritable!r} holds a character that is not text: rename the data set or class.")


def check_several(classes: Sequence[str], where: str) -> None:
    """Refuse a data set of one class; `where` is for the message."""
    if len(classes) == 1:
        raise InputError(f"{where} has one class, {classes[0]!r}, expected two or more: add images of another.")
