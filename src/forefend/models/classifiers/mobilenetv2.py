"""MobileNetV2 with the strides that small images need."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers

# Expansion, width, blocks and stride of each stage (table 2); here the second stage has stride 1.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


@final
class MobileNetV2(nn.Module):
    """A 3x3 stem, seven stages of inverted residuals, a 1x1 convolution to 1280 maps, mean pool, linear.

    The image is halved three times instead of five. As usual on CIFAR, ReLU replaces ReLU6, and a block of stride 1
    that changes the width has a projected shortcut.

    Source: Sandler et al., arXiv 1801.04381.
    """

    # Stages of the same resolution count as one.
    feature_layers = FeatureLayers(
        ("stages.1", "stages.2", "stages.4", "stages.6"), features="relu", third="stages.4.2.conv3"
    )

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.stages = nn.Sequential()
        before = 32
        for expansion, width, blocks, stride in _STAGES:
            stage = nn.Sequential()
            for step in range(blocks):
                stage.append(_InvertedResidual(before, expansion * before, width, stride if step == 0 else 1))
                before = width
            self.stages.append(stage)
        self.conv2 = nn.Conv2d(before, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, H, W)`."""
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        x = self.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


@final
class _InvertedResidual(nn.Module):
    """A 1x1 convolution to `inner` channels, a depthwise 3x3 one, and a 1x1 one to `width` without ReLU."""

    def __init__(self, before: int, inner: int, width: int, stride: int):
        super().__init__()
        self.residual = stride == 1
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if self.residual and before != width:
            self.shortcut.extend((nn.Conv2d(before, width, 1, bias=False), nn.BatchNorm2d(width)))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        inner = self.bn3(self.conv3(inner))
        return inner + self.shortcut(x) if self.residual else inner
