"""Input transformations without weights: JPEG, fewer bits, total variation.

`Jpeg` has no gradient and `BitDepth` a zero gradient, so attack them with `forefend.attacks.bpda`; an attack without it
fails for that reason alone. `TotalVariation` is differentiable.
"""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data.corruptions.digital import jpeg


@final
class Jpeg(nn.Module):
    """JPEG compression by Pillow, with 8 bits a pixel and colors at half the resolution.

    Not differentiable: the result requires no gradient.

    Args:
        channels: channels of the images, 1 or 3.
        quality: quality of the compression, 1 to 95.

    Raises:
        InputError: other channels, a quality out of range; when called, if Pillow is not installed.

    Source: Guo et al., arXiv 1711.00117, section 3.2: quality 75.
    """

    def __init__(self, channels: int = 3, quality: int = 75):
        super().__init__()
        if channels not in (1, 3):
            raise InputError(f"JPEG has {channels} channels: give 1 or 3.")
        if not 1 <= quality <= 95:
            raise InputError(f"The quality of JPEG is {quality}: give 1 to 95.")
        self.settings = {"channels": channels, "quality": quality}

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x` in [0, 1], from images `(B, C, H, W)` in [0, 1]."""
        return jpeg(x, self.settings["quality"])


@final
class BitDepth(nn.Module):
    """Round pixels to 2^bits values from 0 to 1.

    Its gradient is zero almost everywhere.

    Args:
        bits: bits of each pixel, 1 to 8.

    Raises:
        InputError: bits out of range.

    Source: Xu et al., arXiv 1704.01155, section 4.1 ("feature squeezing"); 3 bits are Guo et al.'s (arXiv 1711.00117).
    """

    def __init__(self, channels: int = 3, bits: int = 3):
        super().__init__()
        if not 1 <= bits <= 8:
            raise InputError(f"The bit depth is {bits}: give 1 to 8.")
        self.settings = {"channels": channels, "bits": bits}

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x`."""
        last = 2 ** self.settings["bits"] - 1
        return (x * last).round() / last


@final
class TotalVariation(nn.Module):
    """Total variation denoising of each channel, by a fixed number of projected gradient steps on the dual.

    It approximates the minimizer u of ½‖u − x‖² + weight · TV(u) with isotropic TV. Deterministic, and differentiable
    almost everywhere. Unlike Guo et al., it drops no pixels at random.

    Args:
        weight: weight of the total variation, for pixels in [0, 1].
        steps: number of gradient steps.

    Raises:
        InputError: a weight that is not above 0, or no step.

    Source: Guo et al., arXiv 1711.00117, section 3.3, after Rudin, Osher and Fatemi (1992); the dual is Chambolle's
    ("An algorithm for total variation minimization and applications", 2004).
    """

    def __init__(self, channels: int = 3, weight: float = 0.1, steps: int = 30):
        super().__init__()
        if not weight > 0 or steps < 1:
            raise InputError(f"TotalVariation has weight {weight:g} and {steps} steps: give weight above 0 and 1 step.")
        self.settings = {"channels": channels, "weight": weight, "steps": steps}

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x`, with pixels in the range of each channel of `x`."""
        weight, p = self.settings["weight"], torch.zeros_like(x).expand(2, *x.shape)
        for _ in range(int(self.settings["steps"])):
            p = p + _gradient(x + weight * _divergence(p)) / (4 * weight)
            p = p / torch.linalg.vector_norm(p, dim=0).clamp(min=1)
        # The exact minimizer is in this range, the approximation can miss it by a little.
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return (x + weight * _divergence(p)).maximum(low).minimum(high)


def _gradient(u: Tensor) -> Tensor:
    """Return differences to the next row and column, zero at the border, `(2, B, C, H, W)`."""
    return torch.stack([F.pad(u.diff(dim=2), (0, 0, 0, 1)), F.pad(u.diff(dim=3), (0, 1))])


def _divergence(p: Tensor) -> Tensor:
    """Return minus the adjoint of `_gradient`, `(B, C, H, W)`."""
    rows, columns = p[0, :, :, :-1], p[1, :, :, :, :-1]
    down = F.pad(rows, (0, 0, 0, 1)) - F.pad(rows, (0, 0, 1, 0))
    return down + F.pad(columns, (0, 1)) - F.pad(columns, (1, 0))
