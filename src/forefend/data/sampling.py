"""Seeded stratified samples and splits of datasets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.data.dataset import ImageDataset


def sample(images: ImageDataset, count: int, seed: int) -> ImageDataset:
    """Return a seeded stratified sample (largest remainder), sorted by published index.

    Args:
        images: the dataset.
        count: the exact number of images; `images` is returned unchanged if it holds no more.
        seed: at least 0 and below 2³²; a seed gives the same images on every machine.

    Raises:
        InputError: `count` is below 1, or the seed is out of range.
    """
    if count < 1:
        raise InputError(f"The sample has {count} images, expected at least 1.")
    if count >= len(images):
        return images
    rows = stratified_rows(images.labels, count, seed)
    return images.subset(rows[images.index[rows].argsort()])


def split(images: ImageDataset, share: float, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Hold out a stratified part of the training images for validation.

    Args:
        images: training images; test images are refused, since they must not select a checkpoint.
        share: the held-out share, in (0, 1); each part has at least one image.
        seed: at least 0 and below 2³².

    Returns:
        The remaining and the held-out images, both in the order of `images`.

    Raises:
        InputError: test images, a share outside (0, 1), or fewer than two images.
    """
    if images.split != "train":
        raise InputError(
            f"The {images.split} split of {images.name!r} was given, expected training images to hold some out: "
            'load them with split="train".'
        )
    if not 0 < share < 1:
        raise InputError(f"The held-out share is {share}, expected a number between 0 and 1, such as 0.1.")
    if len(images) < 2:
        raise InputError(f"{images.name!r} has one training image, expected at least two to hold one out.")
    held = stratified_rows(images.labels, min(max(round(share * len(images)), 1), len(images) - 1), seed)
    rest = torch.ones(len(images), dtype=torch.bool)
    rest[held] = False
    return images.subset(rest.nonzero()[:, 0]), images.subset(held)


def stratified_rows(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` row numbers of `labels`, ascending, stratified by largest remainder.

    The seed decides between equal remainders.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"The seed is {seed}, expected a whole number from 0 to 4294967295.")
    # numpy guarantees the stream of RandomState, so that a sample named in a record never changes.
    random = np.random.RandomState(seed)
    y = labels.numpy()
    numbers, sizes = np.unique(y, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(y))
    favored = np.lexsort((random.permutation(len(sizes)), -remainder))
    quota[favored[: count - quota.sum()]] += 1
    drawn = [random.permutation(np.flatnonzero(y == k))[:n] for k, n in zip(numbers, quota, strict=True)]
    return torch.from_numpy(np.sort(np.concatenate(drawn)))
