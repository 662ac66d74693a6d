"""Image data sets.

`load` reads published sets, archives and folders. `from_tensors` and `as_image_dataset` wrap images
in memory. `sample` and `split` draw seeded stratified subsets. `crop_flip` augments a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from forefend.checks import InputError, unknown_name
from forefend.data import cifar, digits, image_folder, mnist, npz, registry, svhn
from forefend.data.augmentation import augmentation, crop_flip
from forefend.data.dataset import ImageDataset, as_image_dataset, check_split, from_tensors
from forefend.data.download import download as fetch
from forefend.data.sampling import sample, split

__all__ = ["ImageDataset", "as_image_dataset", "augmentation", "crop_flip", "from_tensors", "load", "sample", "split"]
READERS: dict[str, Callable[[str, str, Sequence[Path]], ImageDataset]] = {
    "cifar-10": cifar.read,
    "cifar-100": cifar.read,
    "fashion-mnist": mnist.read,
    "mnist": mnist.read,
    "svhn": svhn.read,
}


def load(
    name: str | Path,
    split: str,
    data_dir: str | Path | None = None,
    *,
    size: int | None = None,
    channels: int | None = None,
    download: bool = False,
) -> ImageDataset:
    """Load one split of an image data set.

    Args:
        name: "digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100", "svhn", or the path of an
            .npz file or of a folder of images.
        split: "train" or "test".
        data_dir: folder of the published files; None is the environment variable FOREFEND_DATA, or
            ".data".
        size: height and width, required for a folder of images; None for all other sets.
        channels: 1 to read a folder of images as gray, 3 or None as RGB; None for all other sets.
        download: whether to download published files that are missing.

    Raises:
        InputError: an unknown name, files that are missing, damaged or not the published ones, or a
            missing extra.

    >>> digits = load("digits", "test")
    >>> len(digits), digits.shape
    (539, (1, 8, 8))
    """
    check_split(split)
    if not isinstance(name, str | Path):
        raise InputError(f"The data set is {name!r}, expected a name, or the path of an .npz file or a folder.")
    name = str(name)
    is_archive = name.lower().endswith(".npz") and not Path(name).is_dir()
    if name in READERS or name == "digits" or is_archive:
        for what, given in (("size", size), ("channels", channels)):
            if given is not None:
                raise InputError(f"The {what} is {given}, expected none: only a folder of images needs it, not {name}.")
        if name == "digits":
            return digits.read(split)
        if name in READERS:
            return READERS[name](name, split, _files(name, split, data_dir, download))
        return npz.read(Path(name), split)
    if name and Path(name).is_dir():
        return image_folder.read(Path(name), split, size, channels)
    if os.sep in name:
        raise InputError(f"There is no folder of images {name}, nor is it an .npz file: check the path.")
    raise unknown_name(name, [*READERS, "digits"], "data set")


def _files(name: str, split: str, data_dir: str | Path | None, download: bool) -> list[Path]:
    home = Path(data_dir if data_dir is not None else os.environ.get("FOREFEND_DATA", ".data"))
    paths = registry.find_files(name, split, home)
    if not paths and download:
        fetch(name, home)
        paths = registry.find_files(name, split, home)
    if not paths:
        spec = registry.SETS[name]
        raise InputError(
            f"{' and '.join(spec.splits[split])} of {name} are neither in {home.resolve() / spec.folder} nor in "
            f"{home.resolve()}: download=True fetches them, or name their folder by "
            "data_dir or FOREFEND_DATA."
        )
    return paths
