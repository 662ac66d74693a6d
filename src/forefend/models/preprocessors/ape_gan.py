"""APE-GAN's generator: a small convolutional autoencoder."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn


@final
class ApeGan(nn.Module):
    """Two 4x4 convolutions of stride 2, two transposed ones, tanh.

    Images in [0, 1] are scaled to [-1, 1] inside and back. They are padded with their last row and column to multiples
    of 4, and cropped afterwards. 269,059 parameters for 3 channels and 264,961 for 1.

    Source: Shen et al., arXiv 1707.05474.
    """

    def __init__(self, channels: int = 3):
        super().__init__()
        self.settings = {"channels": channels}
        self.down = nn.Sequential(
            *(nn.Conv2d(channels, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.01)),
            *(nn.Conv2d(64, 128, 4, 2, 1), nn.BatchNorm2d(128), nn.LeakyReLU(0.01)),
        )
        self.up = nn.Sequential(
            *(nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.01)),
            *(nn.ConvTranspose2d(64, channels, 4, 2, 1), nn.Tanh()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return images in (0, 1), of the shape of `x`, from images `(B, C, H, W)` in [0, 1]."""
        height, width = x.shape[-2:]
        padded = F.pad(2 * x - 1, (0, -width % 4, 0, -height % 4), mode="replicate")
        restored = self.up(self.down(padded))[..., :height, :width]
        return (restored + 1) / 2
