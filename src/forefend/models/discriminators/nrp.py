"""The discriminator of NRP, for small images."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.input_size import check_images_fit

_WIDTHS = (32, 64, 128, 128)
_LEAST = 2 ** len(_WIDTHS)  # smallest size for the convolutions of stride 2


@final
class NrpDiscriminator(nn.Module):
    """Four pairs of a 3x3 convolution and a 4x4 one of stride 2, then two linear layers to one logit.

    All convolutions but the first have BatchNorm; LeakyReLU of slope 0.2. Smaller images than 16x16 are padded with
    their last row and column. 899,465 parameters for 3x32x32 images.

    Source: Naseer et al., arXiv 2006.04924 (NRP); widths as used for CIFAR by Zhou et al., ICCV 2021 (CAFD).
    """

    def __init__(self, channels: int = 3, size: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "size": size}
        self.missing = max(0, _LEAST - size)
        first = _WIDTHS[0]
        self.body = nn.Sequential(nn.Conv2d(channels, first, 3, padding=1), nn.LeakyReLU(0.2), *_halving(first))
        for before, width in pairwise(_WIDTHS):
            self.body.extend((nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)))
            self.body.extend((nn.LeakyReLU(0.2), *_halving(width)))
        side = max(size, _LEAST) // _LEAST
        self.linear1 = nn.Linear(_WIDTHS[-1] * side * side, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit for each image, `(B,)`, of `(B, C, size, size)` in [0, 1]."""
        check_images_fit(x, self.settings["channels"], self.settings["size"], "discriminator")
        x = F.pad(x, (0, self.missing, 0, self.missing), mode="replicate")
        x = F.leaky_relu(self.linear1(self.body(x).flatten(1)), 0.2)
        logits: Tensor = self.linear2(x).squeeze(1)
        return logits


def _halving(width: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(width, width, 4, 2, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(width), nn.LeakyReLU(0.2)
