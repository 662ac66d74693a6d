from __future__ import annotations

import torch
from torch import nn

from forefend.checks import check_classifier, check_clean_accuracy
from forefend.data import ImageDataset
from forefend.models.freezing import frozen


def clean_accuracy(name: str, network: nn.Module, images: ImageDataset) -> float:
    """The clean accuracy of a classifier, in [0, 1].

    Raises:
        InputError: it does not return logits, or it is near chance.
    """
    network = frozen(network)
    x, y, _ = images.batch(torch.arange(len(images)))
    with torch.no_grad():
        check_classifier(network, x[:2], len(images.classes), name)
        right = sum(
            int((network(a).argmax(1) == b).sum().item()) for a, b in zip(x.split(250), y.split(250), strict=True)
        )
    accuracy = right / len(images)
    check_clean_accuracy(accuracy, len(images.classes), len(images), name)
    return accuracy
