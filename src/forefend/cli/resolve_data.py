"""Images that the options of a command name."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from forefend import data
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.registry import FORMS
from forefend.runtime.distributed import process_group
from forefend.runtime.run_folder import Run


def split_loader(options: Any) -> Callable[[str], ImageDataset]:
    """A function that loads the split `"train"` or `"test"` of the data set.

    Raises:
        InputError: none was named.
    """
    if options.data is None:
        raise InputError(f"No images were named: give --data with one of {FORMS}.")
    return partial(
        data.load,
        options.data,
        data_dir=options.data_dir and Path(options.data_dir),
        size=options.size,
        channels=options.channels,
        download=options.download,
    )


def data_options(options: Any) -> str:
    """The options of a command line that name the images."""
    given = {name: options[name] for name in ("data", "data_dir", "size", "channels") if options[name] is not None}
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items())


def sample_images(images: ImageDataset, options: Any) -> ImageDataset:
    """Sample `--images` of the images; all of them where there are fewer, with a message."""
    if options.images is None:
        return images
    if options.images > len(images) and not process_group().rank:
        print(f"{images.name}/{images.split} has {len(images)} images, not {options.images}: uses all", flush=True)
    return data.sample(images, options.images, options.seed)


def evaluation_images(options: Any) -> ImageDataset:
    """Load a sample of the test images, by default of the data set that the run was trained on."""
    config = run_config(options)
    options.data = options.data or config.get("data")
    if not is_other_data(options, config) or Path(str(options.data)).exists():  # pictures are read as the run's were
        options.size = options.size or config.get("size")
        options.channels = options.channels or config.get("channels")
    return sample_images(split_loader(options)("test"), options)


def is_other_data(options: Any, config: Mapping[str, Any]) -> bool:
    """Whether `--data` names another data set than that of the run's training; its folder may have moved."""
    trained, given = config.get("data") or "", options.data or ""
    return bool(trained and given) and Path(trained).name != Path(given).name


def run_config(options: Any) -> Mapping[str, Any]:
    """The config of the run; empty without a run, and for a defense that was saved in Python."""
    folder = Path(options.run) if options.run else None
    if folder is None or ((folder / "defense.json").exists() and not (folder / "config.json").exists()):
        return {}
    return Run(folder).config
