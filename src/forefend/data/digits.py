"""Handwritten digits, 1,797 images of 8x8 pixels, included in scikit-learn.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998; CC BY 4.0), its
test part.
"""

from __future__ import annotations

import torch

from forefend.checks import import_extra
from forefend.data.dataset import ImageDataset, InMemoryDataset
from forefend.data.sampling import stratified_rows

TEST_SHARE = 0.3


def read(split: str) -> ImageDataset:
    """Read one split, 1x8x8; a fixed stratified 30% are the test images, since none are published.

    `index` is the position among all 1,797 images.
    """
    published = import_extra("sklearn.datasets", "The set digits", "demo").load_digits()
    labels = torch.from_numpy(published.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[stratified_rows(labels, round(TEST_SHARE * len(labels)), seed=0)] = True
    rows = (test if split == "test" else ~test).nonzero()[:, 0]
    x = torch.from_numpy(published.images).float().div(16).unsqueeze(1)
    return InMemoryDataset("digits", split, x[rows], labels[rows], rows, tuple("0123456789"))
