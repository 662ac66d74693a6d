"""Which part of a data set is for training and which for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.data.notices import say

# Usual names of each split; validation images are the test images of a set that has no others.
NAMES = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
TEST_SHARE = 0.2


def check_split(split: str) -> None:
    """Refuse a split that is neither "train" nor "test"."""
    if split not in NAMES:
        raise InputError(f"The split is {split!r}, expected 'train' or 'test'.")


def find_split(names: Iterable[str], split: str) -> str | None:
    """Return the one of `names` that usually names the split "train" or "test"; None without one."""
    by_name = {name.lower(): name for name in sorted(names, reverse=True)}
    return next((by_name[usual] for usual in NAMES[split] if usual in by_name), None)


def is_split(name: str) -> bool:
    """Return whether a text names a split."""
    return any(name.lower() in usual for usual in NAMES.values())


def hash_split(keys: Sequence[str], split: str, where: str, remedy: str) -> Tensor:
    """Return the rows of a split of pictures that come without splits, and print that.

    A hash of its key alone decides where a picture belongs, so that it stays there when others are
    added. About a fifth are test images.

    Args:
        keys: a text for each picture, such as its path in the data set.
        split: "train" or "test".
        where: the data set, for the message.
        remedy: how to split it otherwise, the end of the message.

    Raises:
        InputError: one of the splits would hold no picture.
    """
    tests = torch.tensor([_is_test(key) for key in keys], dtype=torch.bool)
    rows = (tests if split == "test" else ~tests).nonzero()[:, 0]
    if not 0 < len(rows) < len(keys):
        raise InputError(f"{where} is not split into train and test, and {len(keys)} images are too few: {remedy}.")
    say(
        f"{where} is not split into train and test: {len(rows)} of {len(keys)} images are taken as {split} by a hash "
        f"of their names; {remedy}."
    )
    return rows


def _is_test(key: str) -> bool:
    return int(hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:8], 16) < TEST_SHARE * 2**32
