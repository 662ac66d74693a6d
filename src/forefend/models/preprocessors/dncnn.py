"""DnCNN, the denoiser of denoised smoothing."""

from __future__ import annotations

from functools import partial
from typing import final

from torch import Tensor, nn

from forefend.checks import InputError


@final
class DnCnn(nn.Module):
    """3x3 convolutions at full resolution that predict the noise, which is subtracted from the image; no clamp.

    All but the first and the last have BatchNorm. Weights start orthogonal and the last convolution at zero, so that
    the network starts as the identity. 558,400 parameters for 3 channels.

    Args:
        depth: number of convolutions, from 2.
        width: channels between them.

    Raises:
        InputError: fewer than 2 convolutions, or a width below 1.

    Source: Zhang et al., arXiv 1608.03981; as used by Salman et al., arXiv 2003.01908 (denoised smoothing).
    """

    def __init__(self, channels: int = 3, depth: int = 17, width: int = 64):
        super().__init__()
        if depth < 2 or width < 1:
            raise InputError(
                f"A DnCNN has depth {depth} and width {width}: give a depth of at least 2 and a width of at least 1."
            )
        self.settings = {"channels": channels, "depth": depth, "width": width}
        self.body = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        for _ in range(depth - 2):
            self.body.append(nn.Conv2d(width, width, 3, padding=1, bias=False))
            self.body.append(nn.BatchNorm2d(width, eps=1e-4, momentum=0.95))
            self.body.append(nn.ReLU())
        self.last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        for module in self.body:
            if isinstance(module, nn.Conv2d):
                nn.init.orthogonal_(module.weight)
        nn.init.zeros_(self.body[0].get_parameter("bias"))
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x`, not clamped to [0, 1], from images `(B, C, H, W)` in [0, 1]."""
        noise: Tensor = self.last(self.body(x))
        return x - noise


# For small images: 29,600 parameters, 30 million multiplications at 32x32.
narrow_dncnn = partial(DnCnn, depth=5, width=32)
