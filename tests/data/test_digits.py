from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import load

datasets = pytest.importorskip("sklearn.datasets")


FIRST = [3, 5, 7, 9, 13, 19, 24, 33]


def test_read_split_is_fixed_disjoint_and_stratified() -> None:
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test), train.shape, train.classes[9]) == (1258, 539, (1, 8, 8), "9")
    assert sorted(train.index.tolist() + test.index.tolist()) == list(range(1797))
    published = torch.from_numpy(datasets.load_digits().target)
    assert (test.labels.bincount() - published.bincount() * 539 / 1797).abs().max() < 1
    assert test.index[:8].tolist() == FIRST


def test_read_pixels_are_published_ones_over_16() -> None:
    published, test = datasets.load_digits(), load("digits", "test")
    x, y, index = test.batch(torch.arange(539))
    assert np.array_equal(x[:, 0].numpy() * 16, published.images[index])
    assert np.array_equal(y.numpy(), published.target[index])
    assert (x.dtype, x.min(), x.max()) == (torch.float32, 0, 1)


def test_read_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"pip install 'forefend\[demo\]'"):
        load("digits", "test")
