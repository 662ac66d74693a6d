"""Liao et al.'s denoising U-Net and autoencoder: they add what they think of the noise, negated, to the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.preprocessors.unet import UNet


@final
class ResidualUNet(nn.Module):
    """A U-Net whose output is added to the image: bilinear resizing, a last 1x1 convolution without bias, no clamp.

    Args:
        channels: of the images.
        widths: channels of each stage, from the image down.
        depths: convolutions of each stage.
        lateral: join each stage of the way back to its twin; without it the network is Liao et al.'s denoising
            autoencoder, 9,670,016 parameters, but for its output: theirs paints the image, here it is added to it, so
            that the lateral connections are all that differs.

    Raises:
        InputError: widths and depths that do not go together, or a number below 1.

    Source: Liao et al., arXiv 1712.02976, section 3.2 (DUNET).
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 256, 256),
        depths: Sequence[int] = (2, 3, 3, 3, 3),
        *,
        lateral: bool = True,
    ):
        super().__init__()
        self.settings: dict[str, int | list[int]] = {
            **{"channels": channels, "widths": list(widths), "depths": list(depths), "lateral": lateral},
        }
        self.body = UNet(channels, widths, depths, _bilinear, lateral=lateral)
        self.last = nn.Conv2d(widths[0], channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images of the shape of `x`, not kept inside [0, 1], from images `(B, C, H, W)` in [0, 1]."""
        change: Tensor = self.last(self.body(x))
        return x + change


def _bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
