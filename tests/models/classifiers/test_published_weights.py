"""Published classifiers reach the accuracy of their files, image for image."""

from __future__ import annotations

import gzip
import os
import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from forefend.models.classifiers import Normalized
from forefend.models.classifiers.pretrained import load_weights

ROOT = os.environ.get("FOREFEND_DATA")
pytestmark = pytest.mark.skipif(ROOT is None, reason="FOREFEND_DATA does not name a folder with the real data")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}
CIFAR_FULL_STD = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
NONE = {"mean": 0, "std": 1}

# (file, architecture, test set, normalization): of 10,000 test images, how many are right.
PUBLISHED = {
    "abcrown-cifar10-resnet4b-robust.pth": ("resnet4b", "cifar-10", CIFAR_FULL_STD, 7720),
    "advertorch-mnist-lenet5.pt": ("lenet5", "mnist", NONE, 9889),
    "akamaster-cifar10-resnet20.th": ("resnet20", "cifar-10", IMAGENET, 9173),
    "chenyaofo-cifar10-resnet20.pth": ("resnet20", "cifar-10", CIFAR, 9260),
    "convex-fashion-certified.pth": ("fastat", "fashion-mnist", NONE, 7827),
    "fastat-mnist-fgsm-robust.pth": ("fastat", "mnist", NONE, 9850),
    "marabou-cifar10-large.pth": ("marabou", "cifar-10", NONE, 7416),
    "secml-mnist-smallcnn.pth": ("smallcnn", "mnist", NONE, 9944),
    "trades-mnist-smallcnn-robust.pt": ("smallcnn", "mnist", NONE, 9948),
    "akamaster-cifar10-resnet56.th": ("resnet56", "cifar-10", IMAGENET, 9339),
}
LONG = ("akamaster-cifar10-resnet20.th", "akamaster-cifar10-resnet56.th", "chenyaofo-cifar10-resnet20.pth")


@cache
def test_set(name: str) -> tuple[Tensor, Tensor]:
    folder = Path(ROOT or "")
    if name == "cifar-10":
        with open(folder / "cifar-10-batches-py" / "test_batch", "rb") as file:
            batch = pickle.load(file, encoding="bytes")
        return torch.tensor(batch[b"data"]).view(-1, 3, 32, 32), torch.tensor(batch[b"labels"])
    with gzip.open(folder / name / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).copy()
    with gzip.open(folder / name / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).copy()
    return torch.tensor(pixels).view(-1, 1, 28, 28), torch.tensor(labels)


test_set.__test__ = False  # type: ignore[attr-defined]


def load(file: str) -> Normalized:
    name, _, normalization, _ = PUBLISHED[file]
    return load_weights(name, Path(ROOT or "") / "classifiers" / file, **normalization)


def right(file: str, count: int) -> int:
    x, y = (part[:count] for part in test_set(PUBLISHED[file][1]))
    classifier = load(file)
    with torch.inference_mode():
        # Batches of 50 stay in a processor's cache: a third faster than batches of 250.
        verdicts = [classifier(part / 255).argmax(1) for part in x.split(50)]
    return int((torch.cat(verdicts) == y).sum())


@pytest.mark.parametrize("file", [pytest.param(file, marks=[pytest.mark.slow] * (file in LONG)) for file in PUBLISHED])
def test_the_published_accuracy_is_reached(file: str) -> None:
    # One image of 10,000, 0.01 percentage points, may fall the other way where another processor sums in another order.
    assert abs(right(file, 10_000) - PUBLISHED[file][3]) <= 1


@pytest.mark.parametrize("file", LONG)
def test_the_long_ones_reach_it_on_the_first_images(file: str) -> None:
    # 500 of the images that the slow test counts in full.
    share = PUBLISHED[file][3] / 10_000
    margin = 2.58 * (share * (1 - share) / 500) ** 0.5
    assert abs(right(file, 500) / 500 - share) < margin


def test_shortcuts_are_read_from_the_files() -> None:
    assert load("akamaster-cifar10-resnet20.th").network.settings["projection"] is False
    assert load("chenyaofo-cifar10-resnet20.pth").network.settings["projection"] is True


def test_the_wrong_normalization_costs_accuracy() -> None:
    file = "akamaster-cifar10-resnet20.th"
    wrong = load_weights("resnet20", Path(ROOT or "") / "classifiers" / file, mean=0, std=1)
    x, y = (part[:500] for part in test_set("cifar-10"))
    with torch.inference_mode():
        assert int((wrong(x / 255).argmax(1) == y).sum()) < 0.8 * right(file, 500)
