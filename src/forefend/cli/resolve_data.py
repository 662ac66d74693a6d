"""What parsed options stand for: images, and classifiers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from forefend import data
from forefend.cli.resolve_classifiers import Finder
from forefend.data import ImageDataset
from forefend.runtime.distributed import check_device, process_group


def images_of(options: Any) -> Callable[[str], ImageDataset]:
    """From `"train"` or `"test"` to the images that the options name."""
    return partial(
        data.load,
        options.data,
        data_dir=options.data_dir and Path(options.data_dir),
        size=options.size,
        download=options.download,
    )


def sampled(images: ImageDataset, options: Any) -> ImageDataset:
    """As many of the images as the options ask for; all where they do not say, or there are fewer, which is told."""
    if options.images is None:
        return images
    if options.images > len(images) and not process_group().rank:
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
