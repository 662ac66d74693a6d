"""A small convolutional network for small images: cheap enough to train on a processor, and to attack at every step."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit


@final
class Cnn(nn.Module):
    """Two 3x3 convolutions, each with BatchNorm, ReLU and a max-pool, then one linear layer.

    About a million multiplications for an image of 28x28 pixels. The linear layer sees every cell of the last feature
    map: with a mean over the cells before it, Fashion-MNIST loses several points at this width.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, which the linear layer follows; any from 1.
        width: channels after the first convolution; twice as many after the second.
    """

    taps = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="conv2")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28, *, width: int = 16):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size, "width": width}
        side = -(-size // 4)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.relu2 = nn.ReLU()
        self.linear = nn.Linear(2 * width * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = F.max_pool2d(self.relu1(self.bn1(self.conv1(x))), 2, ceil_mode=True)
        x = F.max_pool2d(self.relu2(self.bn2(self.conv2(x))), 2, ceil_mode=True)
        logits: Tensor = self.linear(x.flatten(1))
        return logits
