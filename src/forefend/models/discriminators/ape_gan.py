"""APE-GAN's discriminator."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.input_size import check_images_fit

_LEAST = 15  # smallest size for three unpadded convolutions of stride 2


@final
class ApeGanDiscriminator(nn.Module):
    """Three unpadded 3x3 convolutions of stride 2 and a linear layer to one logit, without the paper's last sigmoid.

    Images in [0, 1] are scaled to [-1, 1] inside. Smaller images than 15x15 are padded with their last row and column;
    of larger ones the last few can be ignored. 373,889 parameters for 3x32x32 images and 371,457 for 1x28x28.

    Source: Shen et al., arXiv 1707.05474.
    """

    def __init__(self, channels: int = 3, size: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "size": size}
        self.missing = max(0, _LEAST - size)
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, 64, 3, 2), nn.LeakyReLU()),
            *(nn.Conv2d(64, 128, 3, 2), nn.BatchNorm2d(128), nn.LeakyReLU()),
            *(nn.Conv2d(128, 256, 3, 2), nn.BatchNorm2d(256), nn.LeakyReLU()),
        )
        side = max(size, _LEAST)
        for _ in range(3):
            side = (side - 1) // 2
        self.linear = nn.Linear(256 * side * side, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit for each image, `(B,)`, of `(B, C, size, size)` in [0, 1]."""
        check_images_fit(x, self.settings["channels"], self.settings["size"], "discriminator")
        x = F.pad(2 * x - 1, (0, self.missing, 0, self.missing), mode="replicate")
        logits: Tensor = self.linear(self.body(x).flatten(1)).squeeze(1)
        return logits
