"""A folder of images, one subfolder for each class, decoded in batches."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from forefend.checks import InputError
from forefend.data.dataset import ImageDataset, check_several
from forefend.data.encoded_images import PictureFiles, encoded_images
from forefend.data.image_file import SUFFIXES, load_pillow
from forefend.data.notices import say
from forefend.data.splits import find_split, hash_split, is_split

TABLES = (".csv", ".tsv")
Labeled = list[tuple[Path, int]]


def read(path: Path, split: str, size: int | None, channels: int | None = None) -> ImageDataset:
    """Read one split of a folder of pictures.

    The folder holds `train/<class>/*.jpg` and `test/<class>/*.png` or `val/<class>/*`, or class
    folders alone, whose pictures are then split by a hash of their names. Pictures are decoded as
    `decode` describes; those of several sizes need `size`. They are RGB, or gray for `channels` 1.
    Classes are numbered in the alphabetical order of their folders, those of `train` if it exists;
    folders that are all named by whole numbers are in the order of these.
    """
    load_pillow()
    folders = _subfolders(path)
    if not any(map(is_split, folders)):
        return _read_unsplit(path, folders, split, size, channels)
    home, train = find_split(folders, split), find_split(folders, "train")
    if home is None:
        wanted = "train" if split == "train" else "test or val"
        raise InputError(f"{path} has no folder {wanted}, but {', '.join(folders)}: expected {wanted}/<class>/<image>.")
    classes = (_subfolders(path / train) if train else ()) or _subfolders(path / home)
    if split == "train":
        _check_filled(path / home)
    return read_classes(path.resolve().name, split, path / home, classes, size, channels)


def read_classes(
    name: str, split: str, home: Path, classes: Sequence[str] | None, size: int | None, channels: int | None = None
) -> ImageDataset:
    """Read the images of the folders `home/<class>`; `classes` None is the sorted folders."""
    folders = _subfolders(home)
    names = folders if classes is None else tuple(classes)
    if unknown := sorted(set(folders) - set(names)):
        raise InputError(f"{home} has the class {unknown[0]!r}, which the data set lacks: rename or remove it.")
    check_several(names, str(home))
    files = _labeled(home, names)
    if empty := sorted(set(folders) - {names[label] for _, label in files}):
        say(f"{home} has class folders without images ({', '.join(empty[:5])}): they keep their class numbers.")
    return _dataset(name, split, home, files, torch.arange(len(files)), names, size, channels)


def _read_unsplit(
    path: Path, folders: tuple[str, ...], split: str, size: int | None, channels: int | None
) -> ImageDataset:
    """Read a folder of class folders, and split it by a hash of the pictures' names."""
    if not folders:
        raise InputError(f"{path} has no class folders: expected {path.name}/<class>/<image>.jpg{_hint(path)}.")
    check_several(folders, str(path))
    _check_filled(path)
    files = _labeled(path, folders)
    keys = [file.relative_to(path).as_posix() for file, _ in files]
    rows = hash_split(keys, split, str(path), "make folders train and test for another split")
    return _dataset(path.resolve().name, split, path, files, rows, folders, size, channels)


def _dataset(
    name: str,
    split: str,
    home: Path,
    files: Labeled,
    rows: torch.Tensor,
    classes: tuple[str, ...],
    size: int | None,
    channels: int | None,
) -> ImageDataset:
    pictures = PictureFiles(tuple(file for file, _ in files))
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)[rows]
    return encoded_images(name, split, pictures, labels, rows, classes, where=str(home), size=size, channels=channels)


def _labeled(home: Path, classes: tuple[str, ...]) -> Labeled:
    """Return the pictures below `home` with their class numbers; other files give a warning."""
    files = [(file, classes.index(folder)) for folder in _subfolders(home) for file in _files(home / folder)]
    others = sorted({file.suffix or file.name for file, _ in files if file.suffix.lower() not in SUFFIXES})
    if others:
        warnings.warn(
            f"{home} has files that are not read ({', '.join(others[:5])}): images end in {', '.join(SUFFIXES)}.",
            stacklevel=5,
        )
    return [(file, label) for file, label in files if file.suffix.lower() in SUFFIXES]


def _check_filled(home: Path) -> None:
    """Refuse a class without a picture among training images."""
    for folder in _subfolders(home):
        if not any(file.suffix.lower() in SUFFIXES for file in _files(home / folder)):
            raise InputError(f"The class folder {home / folder} holds no images: fill it or remove it.")


def _hint(path: Path) -> str:
    """Return what else to do with a folder without subfolders."""
    tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in TABLES and not is_hidden(file.name))
    return f", or give the table of its pictures, {path / tables[0]}" if tables else ", or a table of paths and labels"


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
