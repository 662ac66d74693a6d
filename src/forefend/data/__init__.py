"""Image data sets.

`load` reads published sets, archives and folders. `from_tensors` and `as_image_dataset` wrap images in memory.
`sample` and `split` draw seeded stratified subsets. `crop_flip` augments a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from forefend.checks import InputError, unknown_name
from forefend.data import cifar, digits, image_folder, mnist, npz, registry, svhn
from forefend.data.augmentation import augmentation, crop_flip
from forefend.data.dataset import ImageDataset, as_image_dataset, check_split, from_tensors, sample, split
from forefend.data.download import download as fetch

__all__ = ["ImageDataset", "as_image_dataset", "augmentation", "crop_flip", "from_tensors", "load", "sample", "split"]
READERS: dict[str, Callable[[str, str, Sequence[Path]], ImageDataset]] = {
    "cifar-10": cifar.read,
    "cifar-100": cifar.read,
    "fashion-mnist": mnist.read,
    "mnist": mnist.read,
    "svhn": svhn.read,
}


def load(
    name: str, split: str, data_dir: str | Path | None = None, *, size: int | None = None, download: bool = False
) -> ImageDataset:
    """One split of a set of images.

    Args:
        name: "digits", "mnist", "fashion-mnist", "cifar-10", "cifar-100", "svhn", or the path of an .npz
            file or of a folder of pictures.
        split: "train" or "test".
        data_dir: where published files lie; None is the environment's FOREFEND_DATA, else ".data".
        size: height and width for a folder of pictures, which has none of its own; None for everything else.
        download: fetch published files that are absent from their publisher.

    Raises:
        InputError: an unknown name, files that are absent, damaged or not the published ones, or a missing extra.
    """
    check_split(split)
    if name in READERS or name == "digits" or name.endswith(".npz"):
        if size is not None:
            raise InputError(f"A size ({size}) is for folders of pictures; the images of {name} have their own.")
        if name == "digits":
            return digits.read(split)
        if name in READERS:
            return READERS[name](name, split, _files(name, split, data_dir, download))
        return npz.read(Path(name), split)
    if name and Path(name).is_dir():
        return image_folder.read(Path(name), split, size)
    if os.sep in name:
        raise InputError(f"There is no folder of pictures {name}, and it is no .npz file: check the path.")
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
            f"{home.resolve()}: --download (download=True) fetches them from their publisher, or point --data-dir or "
            "FOREFEND_DATA to where they lie."
        )
    return paths
