"""What parsed options stand for: images, and classifiers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .. import data
from ..data import Images
from ..named import Finder


def images_of(options: Any) -> Callable[[str], Images]:
    """From `"train"` or `"test"` to the images that the options name."""
    return partial(
        data.load,
        options.data,
        data_dir=options.data_dir and Path(options.data_dir),
        size=options.size,
        download=options.download,
    )


def finder_of(options: Any, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Finder:
    """Finds classifiers for the options' images; `mean` and `std` stand before the options' own."""
    return Finder(
        split=images_of(options),
        runs=Path(options.runs),
        mean=mean or options.mean,
        std=std or options.std,
        allow_weak=options.allow_weak_classifier,
        augment=data.augmentation(options.data),
    )
