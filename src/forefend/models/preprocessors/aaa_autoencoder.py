"""AAA's autoencoder for MNIST and Fashion-MNIST."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@final
class AaaAutoencoder(nn.Module):
    """Two 3x3 convolutions with max-pools, two with upsampling, one to the image, sigmoid.

    The paper states no layers of its "simple convolutional AE"; these are the usual ones, 28,353 parameters for 1
    channel. Pools round up, and features are resized to the exact size of the way down.

    Args:
        width: channels of every inner layer.

    Source: Vaishnavi et al., arXiv 1909.05921 (AAA).
    """

    def __init__(self, channels: int = 1, width: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "width": width}
        pools = [nn.MaxPool2d(2, ceil_mode=True) for _ in range(2)]
        self.encoder = nn.Sequential(*_layer(channels, width), pools[0], *_layer(width, width), pools[1])
        self.decoder = nn.ModuleList(nn.Sequential(*_layer(width, width)) for _ in range(2))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return images in (0, 1), of the shape of `x`, from images `(B, C, H, W)` in [0, 1]."""
        height, width = x.shape[-2:]
        x = self.encoder(x)
        for layer, size in zip(self.decoder, (((height + 1) // 2, (width + 1) // 2), (height, width)), strict=True):
            x = F.interpolate(layer(x), size=size, mode="nearest")
        return torch.sigmoid(self.last(x))


def _layer(before: int, width: int) -> tuple[nn.Conv2d, nn.ReLU]:
    return nn.Conv2d(before, width, 3, padding=1), nn.ReLU()
