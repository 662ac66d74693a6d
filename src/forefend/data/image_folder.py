"""A folder of pictures, one folder a class, decoded when a batch of them is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.data.dataset import ImageDataset, check_not_empty

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png")


def read(path: Path, split: str, size: int | None) -> ImageDataset:
    """One split of `train/<class>/*.jpg`, `test/<class>/*.png` or `val/<class>/*`; any depth below a class.

    The shorter side of each picture is resized to `size` (bilinear, antialiased), then the middle square is kept: the
    images are 3 x size x size. Classes are numbered in the alphabetical order of their folders, those of `train` where
    there is one.

    Args:
        path: the folder that holds `train`, and `test` or `val`.
        split: "train", or "test", which is `val` where there is no `test`.
        size: height and width in pixels; no size is guessed.

    Raises:
        InputError: Pillow is not installed, no size, no such folder, no picture, or a class that training lacks.
    """
    _pillow()
    if size is None or size < 1:
        raise InputError(f"The size of the pictures in {path} is {size}: give one in pixels, such as --size 224.")
    homes = {"train": ("train",), "test": ("test", "val")}[split]
    home = next((path / name for name in homes if (path / name).is_dir()), None)
    if home is None:
        raise InputError(f"{path} has no folder {' or '.join(homes)}: expected {homes[0]}/<class>/<picture>.jpg.")
    held = _folders(home)
    classes = _folders(path / "train") or held
    if stray := sorted(set(held) - set(classes)):
        raise InputError(f"{home} has the class {stray[0]!r}, which {path / 'train'} lacks: classes must agree.")
    files = [(file, classes.index(name)) for name in held for file in _pictures(home / name)]
    paths, labels = tuple(file for file, _ in files), torch.tensor([y for _, y in files], dtype=torch.int64)
    return ImageFolder(path.resolve().name, split, paths, labels, torch.arange(len(files)), classes, size)


@final
@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Images that stay on disk until a batch of them is asked for.

    Args:
        name: the set.
        split: "train" or "test".
        paths: N picture files.
        labels: `(N,)` int64.
        index: `(N,)` int64, positions in the sorted listing of the split.
        classes: names of the classes.
        size: height and width, in pixels.

    Raises:
        InputError: no picture at all.
    """

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
        """Pixels in [0, 1], labels and index of the images at `rows`; an unreadable picture is refused by name."""
        pictures = [decode(self.paths[row], self.size) for row in rows.tolist()]
        pixels = torch.stack(pictures) if pictures else torch.empty(0, *self.shape, dtype=torch.uint8)
        return pixels.float().div_(255), self.labels[rows], self.index[rows]

    def subset(self, rows: Tensor) -> ImageFolder:
        """The images at `rows` alone, in that order."""
        paths = tuple(self.paths[row] for row in rows.tolist())
        return replace(self, paths=paths, labels=self.labels[rows], index=self.index[rows])


def decode(path: Path, size: int) -> Tensor:
    """One picture as 8-bit RGB, `(3, size, size)`.

    Raises:
        InputError: the file cannot be read as a picture of 8-bit pixels.
    """
    _pillow()
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
                raise InputError(f"{path} has pixels of mode {picture.mode}, expected 8-bit ones: convert it first.")
            square = _square(picture.convert("RGB"), size)
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is not a readable picture ({type(error).__name__}): mend or remove it.") from None
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _square(picture: Image, size: int) -> Image:
    from PIL.Image import Resampling

    width, height = picture.size
    short = min(width, height)
    width, height = size * width // short, size * height // short
    left, top = round((width - size) / 2), round((height - size) / 2)
    return picture.resize((width, height), Resampling.BILINEAR).crop((left, top, left + size, top + size))


def _folders(home: Path) -> tuple[str, ...]:
    if not home.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in home.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _pictures(home: Path) -> list[Path]:
    return sorted(file for file in home.rglob("*") if file.suffix.lower() in SUFFIXES and file.name[0] != ".")


def _pillow() -> None:
    try:
        import PIL.Image  # noqa: F401  # the question is whether it is there
    except ImportError:
        raise InputError("Reading photographs needs Pillow: pip install 'forefend[data]'.") from None
