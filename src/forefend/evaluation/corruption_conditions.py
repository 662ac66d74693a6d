"""Conditions of a measurement on corrupted images: generated here, or published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from forefend.checks import InputError, unknown_name
from forefend.data import ImageDataset, corruption_sets, corruptions
from forefend.evaluation.corruption_results import ALL
from forefend.evaluation.results import CLEAN
from forefend.runtime.rng import KeyedRNG


@dataclass(frozen=True)
class Condition:
    """One form of the test images.

    Args:
        corruption: its name; `none` for clean images.
        severity: 1 to 5; 0 for clean images.
        images: reads the images when they are needed.
        corrupt: `(x, rng) -> x`, corrupts them; None where they are used as they are read, clean or
            published.
    """

    corruption: str
    severity: int
    images: Callable[[], ImageDataset]
    corrupt: Callable[[Tensor, KeyedRNG], Tensor] | None = None

    def __str__(self) -> str:
        made = ", made" if self.corrupt else ""
        return self.corruption if self.corruption == CLEAN else f"{self.corruption} {self.severity}{made}"


def generated(images: ImageDataset, names: Sequence[str], severities: Sequence[int]) -> list[Condition]:
    """The clean images, and their corruptions at each severity.

    Args:
        images: the clean test images.
        names: keys of `CORRUPTIONS`; none for all that these images allow.
        severities: from 1 to 5.

    Raises:
        InputError: an unknown corruption or severity, or a corruption of colors for gray images.
    """
    allowed = [name for name in corruptions.CORRUPTIONS if images.shape[0] == 3 or name not in corruptions.COLOR_ONLY]
    for severity in severities:
        corruptions.check_severity(severity)
    for name in names:
        corruptions.find_corruption(name)
        if name not in allowed:
            raise InputError(f"The images of {images.name} are gray, and {name} changes colors: remove it.")
    return [_clean(images)] + [
        Condition(name, severity, lambda: images, partial(_corrupt, name=name, severity=severity))
        for name in dict.fromkeys(names or allowed)
        for severity in sorted(set(severities))
    ]


def published(
    root: Path, images: ImageDataset, names: Sequence[str], severities: Sequence[int], size: int | None = None
) -> list[Condition]:
    """Return the clean images that a published set has, and its corruptions of them.

    Args:
        root: the folder of the published set.
        images: the clean test images.
        names: corruptions in the folder; none for all of them.
        severities: from 1 to 5.
        size: height and width of pictures.

    Raises:
        InputError: an unknown corruption or severity, or a published set of other images.
    """
    known = corruption_sets.corruptions(root)
    for name in names:
        if name not in known:
            raise unknown_name(name, known, f"corruption in {root}")
    for severity in severities:
        corruptions.check_severity(severity)
    names = list(dict.fromkeys(names or known))
    found = corruption_sets.read(root, names[0], severities[0], classes=images.classes, size=size)
    rows = torch.isin(images.index, found.index).nonzero()[:, 0]
    if not len(rows):
        raise InputError(f"{root} holds {len(found)} images and none of the sample: use all images.")
    if len(rows) < len(images):
        print(f"{root} holds {len(found)} images a severity, {len(rows)} of the {len(images)} test images", flush=True)
        images = images.subset(rows)
    return [_clean(images)] + [
        Condition(name, severity, partial(_read, root, images, size, name, severity))
        for name in names
        for severity in sorted(set(severities))
    ]


def _clean(images: ImageDataset) -> Condition:
    return Condition(CLEAN, ALL, lambda: images)


def _corrupt(x: Tensor, rng: KeyedRNG, *, name: str, severity: int) -> Tensor:
    return corruptions.corrupt(name, x, severity, rng=rng)


def _read(root: Path, images: ImageDataset, size: int | None, name: str, severity: int) -> ImageDataset:
    """Read the corrupted versions of `images`, in their order."""
    found = corruption_sets.read(root, name, severity, classes=images.classes, size=size)
    rows = {number: row for row, number in enumerate(found.index.tolist())}
    numbers = images.index.tolist()
    if missing := [number for number in numbers if number not in rows]:
        raise InputError(f"{root} lacks image {missing[0]} of {name} at severity {severity}: unpack the whole set.")
    chosen = found.subset(torch.tensor([rows[number] for number in numbers]))
    if not torch.equal(chosen.labels, images.labels):
        raise InputError(f"The labels in {root} differ from those of {images.name}: give its clean test set.")
    return chosen
