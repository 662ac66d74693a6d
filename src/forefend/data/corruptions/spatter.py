"""Spatter of water (severities 1 to 3) or mud (4 and 5).

Source: Hendrycks and Dietterich, 1903.12261; edges as by Canny (1986), in OpenCV's form.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.data.corruptions.resample import gaussian_smooth, luma, reflect
from forefend.data.corruptions.severity import Scale
from forefend.runtime.rng import KeyedRNG

# Mean and deviation of the liquid, its blur and threshold, strength of water or blur of mud, kind.
LIQUID = Scale(
    (
        (0.62, 0.1, 0.7, 0.7, 0.5, "water"),
        (0.65, 0.1, 0.8, 0.7, 0.5, "water"),
        (0.65, 0.3, 1, 0.69, 0.5, "water"),
        (0.65, 0.1, 0.7, 0.69, 0.6, "mud"),
        (0.65, 0.1, 0.5, 0.68, 0.6, "mud"),
    ),
    (
        (0.65, 0.3, 4, 0.69, 0.6, "water"),
        (0.65, 0.3, 3, 0.68, 0.6, "water"),
        (0.65, 0.3, 2, 0.68, 0.5, "water"),
        (0.65, 0.3, 1, 0.65, 1.5, "mud"),
        (0.67, 0.4, 1, 0.65, 1.5, "mud"),
    ),
)
WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)
WEAK, STRONG = 50, 150  # thresholds of Canny's edges
FAR = 20  # the largest distance from an edge in pixels
# Rows, columns and length of each step to an edge: OpenCV's approximation of Euclidean distance.
_LENGTHS = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
STEPS = tuple(
    (i, j, _LENGTHS[min(abs(i), abs(j)), max(abs(i), abs(j))])
    for i, j in product(range(-2, 3), range(-2, 3))
    if (min(abs(i), abs(j)), max(abs(i), abs(j))) in _LENGTHS
)
RELIEF = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))  # a filter for light from one side
_TAN = 0.4142135623730951  # tangent of 22.5°, the limit between directions of an edge


def spatter(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Add drops of pale turquoise water with highlights, or opaque drops of brown mud."""
    mean, deviation, sigma, least, strength, kind = LIQUID.at(severity, x)
    liquid = gaussian_smooth(mean + deviation * rng.normal(x[:, :1]), sigma)
    if kind == "water":
        depth = (torch.where(liquid < least, 0, liquid) * 255).floor()
        drops = water_highlights(depth.remainder(256))  # the 8-bit numbers of the authors wrap around
        return (x + strength * drops * _color(WATER, x)).clamp(0, 1)
    covered = gaussian_smooth((liquid > least).to(x.dtype), strength)
    covered = torch.where(covered < 0.8, 0, covered)
    return (x * (1 - covered) + covered * _color(MUD, x)).clamp(0, 1)


def _color(channels: tuple[float, float, float], x: Tensor) -> Tensor:
    """Return a color with the channels of `x`, `(1, C, 1, 1)`: its brightness for gray images."""
    color = x.new_tensor(channels).view(1, 3, 1, 1)
    return luma(color) if x.shape[1] == 1 else color


def water_highlights(liquid: Tensor) -> Tensor:
    """Return highlights of water of depth 0 … 255, `(B, 1, H, W)`, with maximum 1."""
    distance = _mean3(_distance(canny_edges(liquid)).to(liquid)).floor()
    light = F.conv2d(_reflect_pad(_equalized(distance)), liquid.new_tensor(RELIEF)[None, None]).clamp(0, 255)
    bright = liquid * _mean3(light).round()
    shone: Tensor = bright / bright.amax((2, 3), keepdim=True).clamp_min(1e-12)
    return shone


def canny_edges(gray: Tensor) -> Tensor:
    """Return Canny's edges, `(B, 1, H, W)` bool: strong maxima and weak ones joined to them."""
    sobel = gray.new_tensor(((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)))
    around = F.pad(gray, (1, 1, 1, 1), mode="replicate")
    across, down = F.conv2d(around, torch.stack((sobel, sobel.T))[:, None]).split(1, 1)
    size = across.abs() + down.abs()
    crest = _local_maxima(size, across, down)
    kept: Tensor = crest & (size > STRONG)
    weak = crest & (size > WEAK)
    while True:
        grown = (F.max_pool2d(kept.float(), 3, 1, 1) > 0) & weak
        if bool((grown == kept).all()):
            return kept
        kept = grown


def _local_maxima(size: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Return where the gradient exceeds one neighbor in its direction and is at least the other."""
    around = F.pad(size, (1, 1, 1, 1))

    def exceeds(row: int, column: int) -> Tensor:
        """Return where the gradient exceeds this neighbor and is at least the opposite one."""
        height, width = size.shape[2:]
        first = around[:, :, 1 + row : 1 + row + height, 1 + column : 1 + column + width]
        second = around[:, :, 1 - row : 1 - row + height, 1 - column : 1 - column + width]
        return (size > first) & (size >= second)

    slanting = (size > torch.zeros_like(size)) & torch.where(
        across * down < 0, _strict(around, size, 1), _strict(around, size, -1)
    )
    flat, steep = down.abs() < _TAN * across.abs(), down.abs() > across.abs() / _TAN
    return torch.where(flat, exceeds(0, -1), torch.where(steep, exceeds(-1, 0), slanting))


def _strict(around: Tensor, size: Tensor, column: int) -> Tensor:
    """Return where the gradient exceeds both neighbors on a diagonal, with `column` −1 or 1."""
    height, width = size.shape[2:]
    above = around[:, :, :height, 1 + column : 1 + column + width]
    below = around[:, :, 2 : 2 + height, 1 - column : 1 - column + width]
    return (size > above) & (size > below)


def _distance(edge: Tensor) -> Tensor:
    """Return the length of the shortest path of STEPS to an edge, at most FAR, `(B, 1, H, W)`."""
    height, width = edge.shape[2:]
    far = torch.where(edge, 0.0, float(FAR))
    while True:
        around = F.pad(far, (2, 2, 2, 2), value=float(FAR))
        paths = [around[:, :, 2 + i : 2 + i + height, 2 + j : 2 + j + width] + length for i, j, length in STEPS]
        nearer = torch.stack([far, *paths]).amin(0)
        if torch.equal(nearer, far):
            return far
        far = nearer


def _equalized(gray: Tensor) -> Tensor:
    """Equalize the histogram of integers 0 … FAR over 0 … 255."""
    counts = torch.stack([(gray <= level).sum((1, 2, 3)) for level in range(FAR + 1)], 1).to(gray)
    least = torch.where(counts > 0, counts, torch.inf).amin(1, keepdim=True)
    rest = counts[:, -1:] - least
    table = ((counts - least) * 255 / rest.clamp_min(1)).round().clamp_min(0)
    spread = table.gather(1, gray.flatten(1).long()).view_as(gray)
    return torch.where(rest[:, :, None, None] > 0, spread, gray)


def _reflect_pad(x: Tensor) -> Tensor:
    """Add a reflected border of one pixel to each image."""
    for dim in (2, 3):
        x = x.index_select(dim, reflect(torch.arange(-1, x.shape[dim] + 1, device=x.device), x.shape[dim]))
    return x


def _mean3(x: Tensor) -> Tensor:
    """Return the mean over 3 × 3 pixels."""
    return F.avg_pool2d(_reflect_pad(x), 3, 1)
