"""The Robustifier's U-Net, in three sizes."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.checks import InputError


@final
class RobustifierUNet(nn.Module):
    """A U-Net with max-pools and bilinear resizing that returns the whole image, without sum or sigmoid.

    The paper gives no table of layers; this layout matches its three parameter counts: 4,318,467 at scale 4, 17,263,107
    at 8 and 69,030,915 at 16. Four pools, two 3x3 convolutions with BatchNorm on each level, down and up; the lowest
    level is as wide as the one above. Pools round up, and features are resized to the lateral ones' exact size.

    Args:
        scale: the paper's S; the first level has 8 S channels.

    Raises:
        InputError: a scale below 1.

    Source: Norouzzadeh et al., "Empirical robustification of pre-trained classifiers", ICML 2021 workshop.
    """

    def __init__(self, channels: int = 3, scale: int = 4):
        super().__init__()
        if scale < 1:
            raise InputError(f"The scale of the Robustifier is {scale}: give at least 1, such as the paper's 4 to 16.")
        self.settings = {"channels": channels, "scale": scale}
        base = 8 * scale
        widths = (channels, base, 2 * base, 4 * base, 8 * base, 8 * base)
        self.down = nn.ModuleList(_pair(widths[i], widths[i + 1], widths[i + 1]) for i in range(5))
        # From the lowest level up; the channels are halved in two steps, and the last level keeps its width.
        self.up = nn.ModuleList(_pair(2 * widths[i], widths[i], max(base, widths[i] // 2)) for i in (4, 3, 2, 1))
        self.last = nn.Conv2d(base, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x`, not clamped to [0, 1], from images `(B, C, H, W)` in [0, 1]."""
        *laterals, x = self.levels(x)
        for level, lateral in zip(self.up, reversed(laterals), strict=True):
            x = F.interpolate(x, size=lateral.shape[-2:], mode="bilinear", align_corners=True)
            x = level(torch.cat((lateral, x), 1))
        restored: Tensor = self.last(x)
        return restored

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the features of each level on the way down; the last are the lowest."""
        features = [self.down[0](x)]
        for level in self.down[1:]:
            features.append(level(F.max_pool2d(features[-1], 2, ceil_mode=True)))
        return features

    def encode(self, x: Tensor) -> Tensor:
        """Return the lowest features, `(B, 64 scale, h, w)`."""
        return self.levels(x)[-1]


def _pair(before: int, middle: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(before, middle, 3, padding=1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
        *(nn.Conv2d(middle, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()),
    )
