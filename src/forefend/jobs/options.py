"""What parsed options stand for: images, and classifiers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..checks import InputError, choose
from ..data import Images
from ..named import Finder
from ..processes import processes


def images_of(options: Any) -> Callable[[str], Images]:
    """From `"train"` or `"test"` to the images that the options name."""
    return partial(
        data.load,
        options.data,
        data_dir=options.data_dir and Path(options.data_dir),
        size=options.size,
        download=options.download,
    )


def sampled(images: Images, options: Any) -> Images:
    """As many of the images as the options ask for; all where they do not say, or there are fewer, which is told."""
    if options.images is None:
        return images
    if options.images > len(images) and not processes().rank:
        print(f"{images.name}/{images.split} has {len(images)} images, not {options.images}: all are taken", flush=True)
    return data.sample(images, options.images, options.seed)


def finder_of(options: Any, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Finder:
    """Finds classifiers for the options' images; `mean` and `std` stand before the options' own.

    Raises:
        InputError: an unknown device, or CUDA where torch finds none.
    """
    check_device(options.device)
    return Finder(
        split=images_of(options),
        runs=Path(options.runs),
        mean=mean or options.mean,
        std=std or options.std,
        allow_weak=options.allow_weak_classifier,
        augment=data.augmentation(options.data),
        device=options.device,
    )


def check_device(device: str | None) -> None:
    """Refuse an unknown device, and CUDA where torch finds none.

    Raises:
        InputError: either.
    """
    if device is not None:
        choose(device, {"cpu": 0, "cuda": 1}, "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device here: leave --device away, or give cpu.")
