"""The purifier network of NRP and of JATP: residual-in-residual dense blocks at full resolution."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.checks import InputError


@final
class Rrdb(nn.Module):
    """A convolution to `width` channels, residual-in-residual dense blocks, a convolution to an image.

    No BatchNorm, no downsampling and no sum with the image. 2,161,795 parameters with 3 blocks (JATP) and 16,550,275
    with 23 (NRP), for 3 channels.

    Args:
        blocks: number of residual-in-residual dense blocks.
        width: channels between the blocks.
        growth: channels that each convolution inside a block adds.
        clamp: clamp the output to [0, 1], as NRP's own code does before the classifier; clamped pixels have no
            gradient.

    Raises:
        InputError: a number below 1.

    Source: Naseer et al., arXiv 2006.04924 (NRP); Zhou et al., arXiv 2106.05453 (JATP); blocks of Wang et al., arXiv
    1809.00219 (ESRGAN).
    """

    def __init__(self, channels: int = 3, blocks: int = 23, *, width: int = 64, growth: int = 32, clamp: bool = True):
        super().__init__()
        if min(blocks, width, growth) < 1:
            raise InputError(
                f"An RRDB has {blocks} blocks, width {width} and growth {growth}: give at least 1 of each."
            )
        self.settings: dict[str, int] = {
            **{"channels": channels, "blocks": blocks, "width": width, "growth": growth, "clamp": clamp},
        }
        self.clamp = clamp
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_ResidualBlock(width, growth) for _ in range(blocks)))
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        # Start at gray: a channel below 0 or above 1 everywhere would have no gradient through the clamp.
        nn.init.constant_(self.last.get_parameter("bias"), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x`, in [0, 1] if clamped, from images `(B, C, H, W)` in [0, 1]."""
        restored: Tensor = self.last(self.blocks(self.first(x)))
        return restored.clamp(0, 1) if self.clamp else restored


@final
class _ResidualBlock(nn.Module):
    """The input plus a fifth of three dense blocks."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.dense = nn.Sequential(*(_DenseBlock(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.dense(x)


@final
class _DenseBlock(nn.Module):
    """The input plus a fifth of five densely connected 3x3 convolutions."""

    def __init__(self, width: int, growth: int):
        super().__init__()
        self.growing = nn.ModuleList(nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(4))
        self.last = nn.Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = x
        for convolution in self.growing:
            features = torch.cat((features, F.leaky_relu(convolution(features), 0.2)), 1)
        return x + 0.2 * self.last(features)
