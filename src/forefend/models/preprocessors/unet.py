"""U-Nets that return an image (RTFE) or a change to the image (Liao et al.)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.checks import InputError

Resize = Callable[[Tensor, Sequence[int]], Tensor]
_WIDTHS, _DEPTHS = (64, 128, 256, 256, 256), (2, 3, 3, 3, 3)


@final
class UNet(nn.Module):
    """The body of a U-Net: images to features of the same height and width, from 1 pixel up.

    A stage is a few 3x3 convolutions without bias, each with BatchNorm and ReLU; from the second stage on, the first
    has stride 2. On the way up, features are resized to the exact size of the lateral ones and concatenated to them.

    Args:
        widths: channels of each stage, from the image down; the first is that of the features.
        depths: number of convolutions of each stage, down and up.
        resize: `(features, (height, width))` to features of that size.
        lateral: concatenate the lateral features.

    Raises:
        InputError: different numbers of widths and depths, or a number below 1.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], depths: Sequence[int], resize: Resize, *, lateral: bool = True
    ):
        super().__init__()
        if len(widths) != len(depths) or not widths or min(channels, *widths, *depths) < 1:
            raise InputError(
                f"A U-Net has {channels} channels, widths {list(widths)} and depths {list(depths)}: "
                "give one width and one depth for each stage, all at least 1."
            )
        self.resize = resize
        self.lateral = lateral
        before = [channels, *widths[:-1]]
        strides = [1] + [2] * (len(widths) - 1)
        self.down = nn.ModuleList(map(_stage, before, widths, depths, strides))
        joined = [below + width if lateral else below for width, below in pairwise(widths)]
        self.up = nn.ModuleList(map(_stage, joined, widths, depths, [1] * len(joined)))

    def forward(self, x: Tensor) -> Tensor:
        """Return features `(B, widths[0], H, W)` of images `(B, C, H, W)`."""
        laterals = self.stages(x)
        x = laterals[-1]
        for stage, lateral in zip(reversed(self.up), reversed(laterals[:-1]), strict=True):
            x = self.resize(x, lateral.shape[-2:])
            x = stage(torch.cat((lateral, x), 1) if self.lateral else x)
        return x

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the features of each stage on the way down; the last are the lowest."""
        features = []
        for stage in self.down:
            x = stage(x)
            features.append(x)
        return features


@final
class DenoisingUNet(nn.Module):
    """A U-Net that returns the image: nearest-neighbor resizing, a last 1x1 convolution, sigmoid.

    The defaults are RTFE's network: 11,033,987 parameters for 3 channels, 792 million multiplications at 32x32.

    Args:
        widths: channels of each stage, from the image down.
        depths: number of convolutions of each stage.
        lateral: concatenate the lateral features; without them the network is the paper's denoising autoencoder.

    Source: Cann et al., arXiv 2209.06931 (RTFE), after the network of Liao et al., arXiv 1712.02976.
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = _WIDTHS,
        depths: Sequence[int] = _DEPTHS,
        *,
        lateral: bool = True,
    ):
        super().__init__()
        self.settings = {"channels": channels, "widths": list(widths), "depths": list(depths)}
        self.settings |= {} if lateral else {"lateral": False}
        self.body = UNet(channels, widths, depths, _nearest, lateral=lateral)
        self.last = nn.Conv2d(widths[0], channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return images in (0, 1), of the shape of `x`, from images `(B, C, H, W)` in [0, 1]."""
        return torch.sigmoid(self.last(self.body(x)))

    def encode(self, x: Tensor) -> Tensor:
        """Return the lowest features, `(B, widths[-1], h, w)`."""
        return self.body.stages(x)[-1]


# For small images: 118,627 parameters, 29 million multiplications at 32x32.
narrow_unet = partial(DenoisingUNet, widths=(16, 32, 64), depths=(2, 2, 2))


@final
class ResidualUNet(nn.Module):
    """A U-Net whose output is added to the image: bilinear resizing, a last 1x1 convolution without bias, no clamp.

    Args:
        widths: channels of each stage, from the image down.
        depths: number of convolutions of each stage.
        lateral: concatenate the lateral features. Without them the network is Liao et al.'s denoising autoencoder,
            9,670,016 parameters, except that its output is added to the image.

    Source: Liao et al., arXiv 1712.02976, section 3.2 (DUNET).
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = _WIDTHS,
        depths: Sequence[int] = _DEPTHS,
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
        """Return images of the shape of `x`, not clamped to [0, 1], from images `(B, C, H, W)` in [0, 1]."""
        change: Tensor = self.last(self.body(x))
        return x + change

    def encode(self, x: Tensor) -> Tensor:
        """Return the lowest features, `(B, widths[-1], h, w)`."""
        return self.body.stages(x)[-1]


def _stage(before: int, width: int, depth: int, stride: int) -> nn.Sequential:
    stage = nn.Sequential()
    for _ in range(depth):
        stage.extend((nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()))
        before, stride = width, 1
    return stage


def _nearest(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="nearest")


def _bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
