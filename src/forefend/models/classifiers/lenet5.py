"""The MNIST network that advertorch's tutorials train."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit, check_side


@final
class LeNet5(nn.Module):
    """Two padded 3x3 convolutions, each with ReLU and a max-pool, then two linear layers.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, at least 4, which the first linear layer follows.

    Raises:
        InputError: images too small for the pools.

    Source: Ding et al., arXiv 1902.07623.
    """

    taps = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="conv2")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        side = check_side(size // 4, size, least=4)
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.linear1 = nn.Linear(64 * side * side, 200)
        self.linear2 = nn.Linear(200, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = F.max_pool2d(self.relu1(self.conv1(x)), 2)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2)
        logits: Tensor = self.linear2(F.relu(self.linear1(x.flatten(1))))
        return logits
