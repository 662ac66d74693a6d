"""Which reader reads what a name, a path or an object stands for."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from forefend.checks import InputError, check_labels, unknown_name
from forefend.data import hugging_face, published
from forefend.data.dataset import Classes, ImageDataset, from_tensors, preferred
from forefend.data.splits import check_split

# The module of each published set; it is imported when its set is read.
READERS = {
    "cifar-10": "cifar",
    "cifar-100": "cifar",
    "fashion-mnist": "mnist",
    "mnist": "mnist",
    "svhn": "svhn",
}
FILES = {".npz": "npz", ".csv": "csv_file", ".tsv": "csv_file"}  # the module that reads files of a suffix
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
FORMS = (
    f"{', '.join(['digits', *READERS])}, an .npz file, a .csv of paths and labels, a folder of class folders, or "
    "a folder that Hugging Face's save_to_disk wrote"
)


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
            .npz file, of a .csv or .tsv of paths and labels, of a folder of class folders, or of a
            folder that Hugging Face's `save_to_disk` wrote.
        split: "train" or "test". Files and folders that are not split are split by a hash of names.
        data_dir: folder of the published files; None is the environment variable FOREFEND_DATA, or
            ".data".
        size: height and width in pixels, to which pictures are resized (the shorter side) and
            cropped (the center); None for pictures of one size and for all other sets.
        channels: 1 to read pictures as gray, 3 or None as RGB; None for all other sets.
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
        raise InputError(f"The data set is {name!r}, expected a name, or the path of a file or a folder.")
    name = str(name)
    path, suffix = Path(name), Path(name).suffix.lower()
    if name == "digits" or name in READERS or (suffix == ".npz" and not path.is_dir()):
        for what, given in (("size", size), ("channels", channels)):
            if given is not None:
                raise InputError(f"{what}={given} was given for {name}, expected none: only pictures need it.")
        if name == "digits":
            return _module("digits").read(split)
        if name in READERS:
            return _module(READERS[name]).read(name, split, _files(name, split, data_dir, download))
        return _module("npz").read(path, split)
    if name and path.is_dir():
        form = "hugging_face" if hugging_face.is_saved(path) else "image_folder"
        return _module(form).read(path, split, size, channels)
    if suffix in FILES:
        return _module(FILES[suffix]).read(path, split, size, channels)
    if path.is_file():
        advice = "unpack it, and give its folder" if suffix in ARCHIVES else "give one of these"
        raise InputError(f"{name} is a file, expected {FORMS}: {advice}.")
    if os.sep in name or suffix:
        raise InputError(f"There is no file or folder of images {name}: check the path.")
    raise unknown_name(name, [*READERS, "digits"], "data set")


def as_image_dataset(
    given: Any,
    *,
    name: str = "data",
    classes: Classes = None,
    split: str = "test",
    size: int | None = None,
    channels: int | None = None,
) -> ImageDataset:
    """Return images and labels of any usual form as an ImageDataset.

    A Dataset or DataLoader is read once into memory. A loader that shuffles is read in the order of
    its dataset, so that the index of an image is its position there, in every run.

    Args:
        given: an ImageDataset, returned unchanged; a pair (x, y) as for `from_tensors`; a torch
            Dataset of pairs (image, label) or of dictionaries; a DataLoader of batches of them; or
            a Dataset or DatasetDict of Hugging Face. Images are not normalized.
        name: the name of the set in records.
        classes: names or number of the classes, or a function that tells their number by the first
            images; None takes the names that the dataset holds, or numbers them 0 … max(y).
        split: "train" or "test"; an ImageDataset keeps its own.
        size: height and width in pixels, to which pictures are resized and cropped; None if they
            have one size.
        channels: 1 to read pictures as gray, 3 as RGB; None leaves it to the data.

    Raises:
        InputError: another type, or images or labels that `from_tensors` refuses.

    >>> import torch
    >>> pairs = torch.utils.data.TensorDataset(torch.rand(4, 1, 8, 8), torch.tensor([0, 2, 1, 0]))
    >>> as_image_dataset(pairs).labels
    tensor([0, 2, 1, 0])
    """
    check_split(split)
    if isinstance(given, ImageDataset):
        check_labels(given.labels, len(given.classes), len(given))
        return given
    if hugging_face.is_dataset(given):
        return hugging_face.read_object(given, name, split, size, channels, classes=classes)
    if isinstance(given, Dataset | DataLoader):
        classes = preferred(classes, _class_names(given))
        given = _module("torch_dataset").read(given, size, channels)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise InputError(
            f"A {type(given).__name__} was given as images, expected a pair (x, y), a torch Dataset or DataLoader, a "
            "Hugging Face Dataset, or what forefend.data.load returns."
        )
    return from_tensors(name, *given, classes=classes, split=split)


def _module(form: str) -> Any:
    """Import the module of a form of data sets."""
    return importlib.import_module(f"forefend.data.{form}")


def _class_names(given: Any) -> tuple[str, ...]:
    """Return the class names that a torch Dataset holds as torchvision's do; none without them."""
    while not hasattr(given, "classes") and hasattr(given, "dataset"):  # a DataLoader, a Subset
        given = given.dataset
    if hugging_face.is_dataset(given):
        return hugging_face.class_names(given)
    names = getattr(given, "classes", None)
    is_named = isinstance(names, tuple | list) and all(isinstance(name, str) for name in names)
    return tuple(names) if names and is_named else ()


def _files(name: str, split: str, data_dir: str | Path | None, download: bool) -> list[Path]:
    home = Path(data_dir if data_dir is not None else os.environ.get("FOREFEND_DATA", ".data"))
    paths = published.find_files(name, split, home)
    if not paths and download:
        _module("download").download(name, home)
        paths = published.find_files(name, split, home)
    if not paths:
        spec = published.SETS[name]
        raise InputError(
            f"{' and '.join(spec.splits[split])} of {name} are neither in {home.resolve() / spec.folder} nor in "
            f"{home.resolve()}: download=True fetches them, or name their folder by "
            "data_dir or FOREFEND_DATA."
        )
    return paths
