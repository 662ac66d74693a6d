"""Input transformations without weights: JPEG, fewer bits, total variation.

What they lack beside the networks of this shelf: there is nothing to train; `Jpeg` passes no gradient at all, and
`BitDepth` one that is zero wherever it exists. An attack that trusts those gradients fails for that reason alone, so
these two are to be attacked through BPDA (`attacks.through.bpda`); `TotalVariation` has honest gradients.
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
    """Images written as JPEG by Pillow, 8 bits a pixel, colors at half the resolution, and read again.

    Not differentiable: what it returns asks for no gradient.

    Args:
        channels: of the images, 1 or 3.
        quality: JPEG's, 1 to 95.

    Raises:
        InputError: other channels, a quality out of range; when called, if Pillow is not installed.

    Source: Guo et al., arXiv 1711.00117, section 3.2: quality 75.
    """

    def __init__(self, channels: int = 3, quality: int = 75):
        super().__init__()
        if channels not in (1, 3):
            raise InputError(f"JPEG writes images of 1 or 3 channels, not {channels}.")
        if not 1 <= quality <= 95:
            raise InputError(f"JPEG's quality is {quality}, expected 1 to 95.")
        self.settings = {"channels": channels, "quality": quality}

    def forward(self, x: Tensor) -> Tensor:
        """Images of the shape of `x` in [0, 1], from images `(B, C, H, W)` in [0, 1]."""
        return jpeg(x, self.settings["quality"])


@final
class BitDepth(nn.Module):
    """Pixels rounded to the nearest of 2^bits values, 0 and 1 among them.

    Its gradient is zero wherever it exists.

    Args:
        channels: of the images; kept in `settings`, changes nothing.
        bits: that are left of each pixel, 1 to 8.

    Raises:
        InputError: bits out of range.

    Source: Xu et al., arXiv 1704.01155, section 4.1 ("feature squeezing"); 3 bits are Guo et al.'s (arXiv 1711.00117).
    """

    def __init__(self, channels: int = 3, bits: int = 3):
        super().__init__()
        if not 1 <= bits <= 8:
            raise InputError(f"A bit depth of {bits} was given, expected 1 to 8.")
        self.settings = {"channels": channels, "bits": bits}

    def forward(self, x: Tensor) -> Tensor:
        """Images of the shape of `x`."""
        last = 2 ** self.settings["bits"] - 1
        return (x * last).round() / last


@final
class TotalVariation(nn.Module):
    """Each channel smoothed towards little total variation, by a fixed number of projected gradient steps on the dual.

    It approaches the minimizer u of ½‖u − x‖² + weight · TV(u), where TV is isotropic. Deterministic, and
    differentiable almost everywhere. Guo et al. also drop pixels at random, and weigh otherwise; this does not.

    Args:
        channels: of the images; kept in `settings`, changes nothing.
        weight: of the total variation, in pixels of [0, 1].
        steps: gradient steps.

    Raises:
        InputError: a weight that is not above 0, or no step.

    Source: Guo et al., arXiv 1711.00117, section 3.3, after Rudin, Osher and Fatemi (1992); the dual is Chambolle's
    ("An algorithm for total variation minimization and applications", 2004).
    """

    def __init__(self, channels: int = 3, weight: float = 0.1, steps: int = 30):
        super().__init__()
        if not weight > 0 or steps < 1:
            raise InputError(
                f"Total variation was given weight {weight:g} and {steps} steps: give a weight above 0, and a step."
            )
        self.settings = {"channels": channels, "weight": weight, "steps": steps}

    def forward(self, x: Tensor) -> Tensor:
        """Images of the shape of `x`; pixels stay in the range that they had."""
        weight, p = self.settings["weight"], torch.zeros_like(x).expand(2, *x.shape)
        for _ in range(int(self.settings["steps"])):
            p = p + _slopes(x + weight * _divergence(p)) / (4 * weight)
            p = p / torch.linalg.vector_norm(p, dim=0).clamp(min=1)
        # What the exact minimizer obeys by itself, unfinished steps may miss by a little.
        low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return (x + weight * _divergence(p)).maximum(low).minimum(high)


def _slopes(u: Tensor) -> Tensor:
    """Differences to the next row and to the next column, zero at the border: `(2, B, C, H, W)`."""
    return torch.stack([F.pad(u.diff(dim=2), (0, 0, 0, 1)), F.pad(u.diff(dim=3), (0, 1))])


def _divergence(p: Tensor) -> Tensor:
    """Minus the adjoint of `_slopes`, `(B, C, H, W)`."""
    rows, columns = p[0, :, :, :-1], p[1, :, :, :, :-1]
    down = F.pad(rows, (0, 0, 0, 1)) - F.pad(rows, (0, 0, 1, 0))
    return down + F.pad(columns, (0, 1)) - F.pad(columns, (1, 0))
