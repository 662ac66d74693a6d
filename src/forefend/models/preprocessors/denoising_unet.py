"""The robust transferable feature extractor (RTFE): a U-Net that paints the whole image anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.preprocessors.unet import UNet


@final
class DenoisingUNet(nn.Module):
    """A U-Net whose output is the image itself: nearest-neighbor resizing, a last 1x1 convolution, sigmoid.

    Args:
        channels: of the images.
        widths: channels of each stage, from the image down.
        depths: convolutions of each stage.

    Raises:
        InputError: widths and depths that do not go together, or a number below 1.

    Source: Cann et al., arXiv 2209.06931 (RTFE), after the network of Liao et al., arXiv 1712.02976.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 256, 256),
        depths: Sequence[int] = (2, 3, 3, 3, 3),
    ):
        super().__init__()
        self.settings = {"channels": channels, "widths": list(widths), "depths": list(depths)}
        self.body = UNet(channels, widths, depths, _nearest)
        self.last = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images in (0, 1), of the shape of `x`, from images `(B, C, H, W)` in [0, 1]."""
        return torch.sigmoid(self.last(self.body(x)))


def rtfe_unet(
    channels: int = 3, widths: Sequence[int] = (64, 128, 256, 256, 256), depths: Sequence[int] = (2, 3, 3, 3, 3)
) -> DenoisingUNet:
    """The paper's network: 11,033,987 parameters for 3 channels, 792 million multiplications at 32x32."""
    return DenoisingUNet(channels, widths, depths)


def narrow_unet(
    channels: int = 3, widths: Sequence[int] = (16, 32, 64), depths: Sequence[int] = (2, 2, 2)
) -> DenoisingUNet:
    """The same form for small images and processors: 118,627 parameters, 29 million multiplications at 32x32."""
    return DenoisingUNet(channels, widths, depths)


def _nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="nearest")
