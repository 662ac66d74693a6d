"""Clean accuracy of a classifier."""

from __future__ import annotations

import torch
from torch import nn

from forefend.checks import check_classifier, check_clean_accuracy, predictions
from forefend.data import ImageDataset
from forefend.models.freezing import frozen


def clean_accuracy(name: str, network: nn.Module, images: ImageDataset) -> float:
    """Measure the clean accuracy of a classifier, in [0, 1].

    Raises:
        InputError: the classifier does not return logits, or its accuracy is near chance.
    """
    network = frozen(network)
    x, y, index = images.batch(torch.arange(len(images)))
    with torch.no_grad():
        check_classifier(network, x[:2], len(images.classes), name)
        parts = zip(x.split(250), y.split(250), index.split(250), strict=True)
        correct = [(predictions(network(a), i) == b).sum() for a, b, i in parts]
    accuracy = int(torch.stack(correct).sum()) / len(images)
    check_clean_accuracy(accuracy, len(images.classes), len(images), name)
    return accuracy
