"""SqueezeNet with BatchNorm and bypasses, for small images."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers


@final
class SqueezeNet(nn.Module):
    """A 3x3 stem and eight fire modules with three max-pools, then a 1x1 convolution to the classes and mean pool.

    The paper's network with simple bypasses, a 3x3 stem without stride, and BatchNorm after every convolution but the
    last, as usual on CIFAR.

    Source: Iandola et al., arXiv 1602.07360.
    """

    # The last convolution returns the classes, so the last features are its input.
    feature_layers = FeatureLayers(("stem", "fire4", "fire8", "fire9"), features="fire9", third="fire8.wide.0")

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        self.stem = _convolution(channels, 96, 3)
        self.fire2 = _Fire(96, 16, 128)
        self.fire3 = _Fire(128, 16, 128)
        self.fire4 = _Fire(128, 32, 256)
        self.fire5 = _Fire(256, 32, 256)
        self.fire6 = _Fire(256, 48, 384)
        self.fire7 = _Fire(384, 48, 384)
        self.fire8 = _Fire(384, 64, 512)
        self.fire9 = _Fire(512, 64, 512)
        self.conv10 = nn.Conv2d(512, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, H, W)`."""
        x = self.fire2(_halve(self.stem(x)))
        x = self.fire4(self.fire3(x) + x)
        x = _halve(x)
        x = self.fire6(self.fire5(x) + x)
        x = self.fire8(self.fire7(x) + x)
        logits: Tensor = self.conv10(self.fire9(_halve(x))).mean((2, 3))
        return logits


@final
class _Fire(nn.Module):
    """A 1x1 convolution to `squeezed` channels, then parallel 1x1 and 3x3 ones of half of `width` each."""

    def __init__(self, before: int, squeezed: int, width: int):
        super().__init__()
        self.squeeze = _convolution(before, squeezed, 1)
        self.narrow = _convolution(squeezed, width // 2, 1)
        self.wide = _convolution(squeezed, width // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat((self.narrow(x), self.wide(x)), 1)


def _convolution(before: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU())


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)
