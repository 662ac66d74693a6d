"""The small residual network without BatchNorm of verification benchmarks."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit


@final
class ResNet4b(nn.Module):
    """A stem and four residual blocks with biases that halve the image three times, then two linear layers.

    Source: alpha-beta-CROWN's `resnet4b`, arXiv 2103.06624.
    """

    feature_layers = FeatureLayers(stages=("layer1", "layer2"), features="layer2", third="layer2.1.conv2")

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        self.conv1 = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.layer1 = nn.Sequential(_Block(16, 2), _Block(32, 1))
        self.layer2 = nn.Sequential(_Block(32, 2), _Block(32, 1))
        side = -(-size // 8)
        self.linear1 = nn.Linear(32 * side * side, 100)
        self.linear2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = self.layer2(self.layer1(F.relu(self.conv1(x))))
        logits: Tensor = self.linear2(F.relu(self.linear1(x.flatten(1))))
        return logits


@final
class _Block(nn.Module):
    def __init__(self, before: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, 32, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(before, 32, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))
