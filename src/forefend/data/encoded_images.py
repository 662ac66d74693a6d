"""Pictures that stay encoded, in files or in a table, until a batch reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor

from forefend.checks import InputError, as_integer, check_labels
from forefend.data.dataset import check_set
from forefend.data.image_file import MODES, decode, dimensions, load_pillow
from forefend.data.notices import say


class Pictures(Protocol):
    """Encoded pictures by row."""

    def title(self, row: int) -> str:
        """What messages call the picture."""

    def encoded(self, row: int) -> Path | bytes:
        """The file of the picture, or its content."""


@final
@dataclass(frozen=True)
class PictureFiles:
    """Pictures in files."""

    paths: tuple[Path, ...] = field(repr=False)

    def title(self, row: int) -> str:
        """What messages call the picture: its path."""
        return str(self.paths[row])

    def encoded(self, row: int) -> Path:
        """The path of the picture."""
        return self.paths[row]


@final
@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Images that a batch decodes; `index` is their row in `pictures`.

    `size` None keeps pictures as they are, all of one `shape`; a number resizes their shorter side
    and crops the central square. Classes are `numbered` if only the labels tell how many there are.
    """

    name: str
    split: str
    pictures: Pictures = field(repr=False)
    labels: Tensor = field(repr=False)
    index: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    shape: tuple[int, int, int]
    size: int | None
    numbered: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        check_set(self.name, self.split, self.classes, len(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and index at `rows`; an unreadable picture raises an InputError."""
        images = [self._decoded(row) for row in self.index[rows].tolist()]
        pixels = torch.stack(images) if images else torch.empty(0, *self.shape, dtype=torch.uint8)
        return pixels.float().div_(255), self.labels[rows], self.index[rows]

    def subset(self, rows: Tensor) -> EncodedImages:
        """Return a dataset of the images at `rows`, in that order."""
        return replace(self, labels=self.labels[rows], index=self.index[rows])

    def file_contents(self) -> Iterator[bytes]:
        """Yield each encoded picture, from which `dataset_digest` is computed."""
        for row in self.index.tolist():
            found = self.pictures.encoded(row)
            yield found.read_bytes() if isinstance(found, Path) else found

    def _decoded(self, row: int) -> Tensor:
        title = self.pictures.title(row)
        image = decode(self.pictures.encoded(row), self.size, self.shape[0], title)
        if tuple(image.shape) != self.shape:
            raise InputError(f"{title} is now {tuple(image.shape)}, and was {self.shape}: restore it.")
        return image


def encoded_images(
    name: str,
    split: str,
    pictures: Pictures,
    labels: Tensor,
    index: Tensor,
    classes: tuple[str, ...],
    *,
    where: str,
    size: int | None,
    channels: int | None,
) -> EncodedImages:
    """Return the pictures at `index` as a dataset.

    Args:
        name: of the data set.
        split: "train" or "test".
        pictures: encoded pictures.
        labels: class numbers of the rows `index`, `(N,)`.
        index: rows of `pictures`, `(N,)`.
        classes: their names.
        where: what messages call the data set.
        size: height and width in pixels, to which pictures are resized and cropped; None if all
            have one size.
        channels: 1 for gray, 3 or None for RGB.

    Raises:
        InputError: a number is out of range, or pictures of several sizes are given without one.
    """
    load_pillow()
    check_set(name, split, classes, len(labels))
    check_labels(labels, len(classes))
    channels = 3 if channels is None else channels
    if channels not in MODES:
        raise InputError(f"The number of channels is {channels!r}, expected 1 for gray images or 3 for RGB.")
    if size is None:
        height, width = _common_size(pictures, index, where)
    else:
        height = width = size = as_integer(size, "size")
        say(f"{name}: the shorter side of each picture becomes {size} pixels, and the center is cropped.")
    return EncodedImages(name, split, pictures, labels, index, classes, (channels, height, width), size)


def _common_size(pictures: Pictures, index: Tensor, where: str) -> tuple[int, int]:
    """Return height and width of all pictures.

    Raises:
        InputError: they differ.
    """
    found = {dimensions(pictures.encoded(row), pictures.title(row)) for row in index.tolist()}
    if len(found) > 1:
        (height, width), *_, (most_height, most_width) = sorted(found, key=lambda sides: sides[0] * sides[1])
        raise InputError(
            f"{where} has pictures of {len(found)} sizes, from {height}x{width} to {most_height}x{most_width}: give "
            "one in pixels, such as size=224, to which the shorter side is resized before the center is cropped."
        )
    return found.pop()
