"""A folder of images, one subfolder for each class, decoded in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from forefend.checks import InputError, import_extra
from forefend.data.dataset import ImageDataset, check_not_empty

SUFFIXES = (".jpg", ".jpeg", ".png")


def read(path: Path, split: str, size: int | None) -> ImageDataset:
    """Read one split of a folder `train/<class>/*.jpg` and `test/<class>/*.png` or `val/<class>/*`.

    The shorter side of each image is resized to `size` (bilinear, antialiased) and the image is
    cropped to the central square. Classes are numbered in the alphabetical order of their folders,
    those of `train` if it exists.
    """
    _pillow()
    homes = {"train": ("train",), "test": ("test", "val")}[split]
    home = next((path / name for name in homes if (path / name).is_dir()), None)
    if home is None:
        raise InputError(f"{path} has no folder {' or '.join(homes)}: expected {homes[0]}/<class>/<image>.jpg.")
    classes = _subfolders(path / "train") or _subfolders(home)
    return read_classes(path.resolve().name, split, home, classes, size)


def read_classes(name: str, split: str, home: Path, classes: Sequence[str] | None, size: int | None) -> ImageDataset:
    """Read the images of the folders `home/<class>`; `classes` None is the sorted folders."""
    if size is None or size < 1:
        raise InputError(f"The size of the images in {home} is {size}: give one in pixels, such as size=224.")
    folders = _subfolders(home)
    names = folders if classes is None else tuple(classes)
    if unknown := sorted(set(folders) - set(names)):
        raise InputError(f"{home} has the class {unknown[0]!r}, which the data set lacks: rename or remove it.")
    files = [(file, names.index(folder)) for folder in folders for file in _images(home / folder)]
    paths, labels = tuple(file for file, _ in files), torch.tensor([y for _, y in files], dtype=torch.int64)
    return ImageFolder(name, split, paths, labels, torch.arange(len(files)), names, size)


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

    def __post_init__(self) -> None:
        check_not_empty(self.name, self.split, len(self.paths))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and index at `rows`; an unreadable file raises an InputError."""
        images = [decode(self.paths[row], self.size) for row in rows.tolist()]
        pixels = torch.stack(images) if images else torch.empty(0, *self.shape, dtype=torch.uint8)
        return pixels.float().div_(255), self.labels[rows], self.index[rows]

    def subset(self, rows: Tensor) -> ImageFolder:
        """Return a dataset of the images at `rows`, in that order."""
        paths = tuple(self.paths[row] for row in rows.tolist())
        return replace(self, paths=paths, labels=self.labels[rows], index=self.index[rows])


def decode(path: Path, size: int) -> Tensor:
    """Return an image file as 8-bit RGB, `(3, size, size)`."""
    pillow = _pillow()
    try:
        with pillow.open(path) as image:
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise InputError(f"{path} has pixels of mode {image.mode}, expected 8-bit ones: convert it first.")
            square = _center_square(image.convert("RGB"), size)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable image ({type(error).__name__}): repair or remove it.") from None
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _pillow() -> Any:
    return import_extra("PIL.Image", "Reading images", "data")


def _center_square(image: Any, size: int) -> Any:
    width, height = image.size
    short = min(width, height)
    width, height = size * width // short, size * height // short
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), _pillow().Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _subfolders(home: Path) -> tuple[str, ...]:
    entries = home.iterdir() if home.is_dir() else ()
    return tuple(sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")))


def _images(home: Path) -> list[Path]:
    return sorted(file for file in home.rglob("*") if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
