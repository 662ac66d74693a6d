"""A folder of images, one subfolder for each class, decoded in batches."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from forefend.checks import InputError, as_integer
from forefend.data.dataset import ImageDataset, check_set
from forefend.data.image_file import MODES, SUFFIXES, decode, load_pillow


def read(path: Path, split: str, size: int | None, channels: int | None = None) -> ImageDataset:
    """Read one split of a folder `train/<class>/*.jpg` and `test/<class>/*.png` or `val/<class>/*`.

    The shorter side of each image is resized to `size` (bilinear, antialiased) and the image is
    cropped to the central square, as `decode` describes. Images are RGB, or gray for `channels` 1.
    Classes are numbered in the alphabetical order of their folders, those of `train` if it exists;
    folders that are all named by whole numbers are in the order of these.
    """
    load_pillow()
    homes = {"train": ("train",), "test": ("test", "val")}[split]
    home = next((path / name for name in homes if (path / name).is_dir()), None)
    if home is None:
        raise InputError(f"{path} has no folder {' or '.join(homes)}: expected {homes[0]}/<class>/<image>.jpg.")
    classes = _subfolders(path / "train") or _subfolders(home)
    return read_classes(path.resolve().name, split, home, classes, size, channels)


def read_classes(
    name: str, split: str, home: Path, classes: Sequence[str] | None, size: int | None, channels: int | None = None
) -> ImageDataset:
    """Read the images of the folders `home/<class>`; `classes` None is the sorted folders."""
    channels = 3 if channels is None else channels
    if channels not in MODES:
        raise InputError(f"The number of channels is {channels!r}, expected 1 for gray images or 3 for RGB.")
    if size is None:
        raise InputError(f"The size of the images in {home} is not known: give one in pixels, such as size=224.")
    folders = _subfolders(home)
    names = folders if classes is None else tuple(classes)
    if unknown := sorted(set(folders) - set(names)):
        raise InputError(f"{home} has the class {unknown[0]!r}, which the data set lacks: rename or remove it.")
    files = [(file, names.index(folder)) for folder in folders for file in _files(home / folder)]
    others = sorted({file.suffix or file.name for file, _ in files if file.suffix.lower() not in SUFFIXES})
    if others:
        warnings.warn(
            f"{home} has files that are not read ({', '.join(others[:5])}): images end in {', '.join(SUFFIXES)}.",
            stacklevel=4,
        )
    files = [(file, label) for file, label in files if file.suffix.lower() in SUFFIXES]
    paths, labels = tuple(file for file, _ in files), torch.tensor([y for _, y in files], dtype=torch.int64)
    return ImageFolder(name, split, paths, labels, torch.arange(len(files)), names, as_integer(size, "size"), channels)


@final
@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images that stay on disk until a batch reads them; `index` is the position of the file."""

    name: str
    split: str
    paths: tuple[Path, ...] = field(repr=False)
    labels: Tensor = field(repr=False)
    index: Tensor = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    size: int
    channels: int = 3

    def __post_init__(self) -> None:
        check_set(self.name, self.split, self.classes, len(self.paths))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return self.channels, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and index at `rows`; an unreadable file raises an InputError."""
        images = [decode(self.paths[row], self.size, self.channels) for row in rows.tolist()]
        pixels = torch.stack(images) if images else torch.empty(0, *self.shape, dtype=torch.uint8)
        return pixels.float().div_(255), self.labels[rows], self.index[rows]

    def subset(self, rows: Tensor) -> ImageFolder:
        """Return a dataset of the images at `rows`, in that order."""
        paths = tuple(self.paths[row] for row in rows.tolist())
        return replace(self, paths=paths, labels=self.labels[rows], index=self.index[rows])

    def file_contents(self) -> Iterator[bytes]:
        """Yield the content of each file, from which `dataset_digest` is computed."""
        return (path.read_bytes() for path in self.paths)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is one that operating systems add, or that users hide."""
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _subfolders(home: Path) -> tuple[str, ...]:
    """Return the names of the visible subfolders, by number if all are whole numbers, else sorted."""
    entries = home.iterdir() if home.is_dir() else ()
    names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)


def _files(home: Path) -> list[Path]:
    """Return the visible files below a folder, sorted."""
    files = []
    for folder, subfolders, names in os.walk(home):
        subfolders[:] = [name for name in subfolders if not is_hidden(name)]
        files += [Path(folder, name) for name in names if not is_hidden(name)]
    return sorted(files)
