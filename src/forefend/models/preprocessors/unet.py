"""The encoder and decoder that the denoising and the residual U-Net share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from forefend.checks import InputError

Resize = Callable[[Tensor, Sequence[int]], Tensor]


@final
class UNet(nn.Module):
    """Stages that halve the image, and as many, less one, that come back up beside their twins: images to features.

    A stage is a few 3x3 convolutions without bias, each followed by BatchNorm and ReLU; from the second stage on, the
    first has stride 2. On the way back what comes from below is resized to the twin's exact size and joined to it, so
    that every height and width from 1 works.

    Args:
        channels: of the images.
        widths: channels of each stage, from the image down; the features come out with the first.
        depths: convolutions of each stage, the same on the way back.
        resize: features and the wanted (height, width) -> features of that size.
        lateral: join the twins; without it the way back sees only what comes from below, and the twins' sizes.

    Raises:
        InputError: widths and depths that do not go together, or a number below 1.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], depths: Sequence[int], resize: Resize, *, lateral: bool = True
    ):
        super().__init__()
        if len(widths) != len(depths) or not widths:
            raise InputError(
                f"A U-Net has {len(widths)} widths {list(widths)} and {len(depths)} depths {list(depths)}, "
                "expected one of each for each stage."
            )
        if min(channels, *widths, *depths) < 1:
            raise InputError(
                f"A U-Net has {channels} channels, widths {list(widths)} and depths {list(depths)}, "
                "expected whole numbers from 1."
            )
        self.resize = resize
        self.lateral = lateral
        before = [channels, *widths[:-1]]
        strides = [1] + [2] * (len(widths) - 1)
        self.down = nn.ModuleList(map(_stage, before, widths, depths, strides))
        joined = [below + width if lateral else below for width, below in pairwise(widths)]
        self.up = nn.ModuleList(map(_stage, joined, widths, depths, [1] * len(joined)))

    def forward(self, x: Tensor) -> Tensor:
        """Features `(B, widths[0], H, W)` of images `(B, C, H, W)`."""
        twins = []
        for stage in self.down:
            x = stage(x)
            twins.append(x)
        for stage, twin in zip(reversed(self.up), reversed(twins[:-1]), strict=True):
            x = self.resize(x, twin.shape[-2:])
            x = stage(torch.cat((twin, x), 1) if self.lateral else x)
        return x


def _stage(before: int, width: int, depth: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for step in range(depth):
        layers += [
            nn.Conv2d(before if step == 0 else width, width, 3, stride if step == 0 else 1, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)
