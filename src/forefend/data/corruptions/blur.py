"""Gaussian, defocus, glass, motion and zoom blur.

Source: Hendrycks and Dietterich, 1903.12261; motion blur follows ImageMagick, which made the
published sets.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.data.corruptions.resample import clipped_zoom, gaussian_smooth, reflect
from forefend.data.corruptions.severity import Scale
from forefend.runtime.rng import KeyedRNG

SIGMA = Scale((0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))
# Radius of the disk, and deviation of the blur that smooths its rim; pixels.
DISC = Scale(
    ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
)
# Deviation of the blur before and after; reach of the swaps in pixels; number of rounds.
GLASS = Scale(
    ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
)
# Radius and deviation of the motion blur, pixels.
SMEAR = Scale(
    ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
)
# The upper limit of the zoom, exclusive, and the step.
ZOOM = Scale(
    ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
)


def gaussian_blur(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Apply a Gaussian blur that repeats the border."""
    return gaussian_smooth(x, SIGMA.at(severity, x)).clamp(0, 1)


def defocus_blur(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Blur with a disk, as by a lens out of focus."""
    kernel = disk_kernel(*DISC.at(severity, x)).to(x)
    margin = len(kernel) // 2
    for dim in (2, 3):
        place = torch.arange(-margin, x.shape[dim] + margin, device=x.device)
        x = x.index_select(dim, reflect(place, x.shape[dim]))
    channels = x.shape[1]
    return F.conv2d(x, kernel.expand(channels, 1, *kernel.shape), groups=channels).clamp(0, 1)


def glass_blur(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Replace pixels by neighbors, as frosted glass does, and blur before and after.

    The published program copies one pixel of a pair over the other instead of swapping them; so
    does this function.
    """
    sigma, reach, rounds = GLASS.at(severity, x)
    x = (gaussian_smooth(x, sigma) * 255).floor() / 255  # the authors truncate to 8 bits
    u = rng.uniform(x.new_empty(len(x), rounds, *x.shape[2:], 2))
    return gaussian_smooth(_replace_by_neighbors(x, (2 * reach * u).long() - reach, reach), sigma).clamp(0, 1)


def motion_blur(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Blur along a random direction between −45° and 45°."""
    radius, sigma = SMEAR.at(severity, x)
    return directional_blur(x, radius, sigma, 90 * rng.uniform(x[:, 0, 0, 0]) - 45).clamp(0, 1)


def zoom_blur(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Return the mean of the image and of enlargements of its center."""
    end, step = ZOOM.at(severity, x)
    views = [clipped_zoom(x, float(factor)) for factor in np.arange(1, end, step)]
    return (torch.stack([x, *views]).mean(0)).clamp(0, 1)


def disk_kernel(radius: float, rim: float) -> Tensor:
    """Return the weights of a disk with a smoothed rim, `(K, K)`, float64, K odd."""
    half = 8 if radius <= 8 else math.ceil(radius)
    place = torch.arange(-half, half + 1, dtype=torch.float64)
    flat = (place[:, None] ** 2 + place**2 <= radius**2).double()
    flat /= flat.sum()
    margin = 1 if radius <= 8 else 2
    weights = torch.exp(-(torch.arange(-margin, margin + 1, dtype=torch.float64) ** 2) / (2 * rim**2))
    weights /= weights.sum()
    size = len(place)
    for dim in (0, 1):
        parts = [
            weight * flat.index_select(dim, reflect(torch.arange(size) + move, size))
            for move, weight in zip(range(-margin, margin + 1), weights, strict=True)
        ]
        flat = torch.stack(parts).sum(0)
    used = int((flat.sum(0) > 0).nonzero().min())  # an empty border costs time, and may exceed small images
    return flat[used : size - used, used : size - used]


def directional_blur(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Blur with a one-sided Gaussian along 2 · radius + 1 pixels in a direction, `(B,)`.

    The border is repeated; 0° is along a row, 90° down a column.
    """
    angle = torch.deg2rad(degrees.double())
    weights = torch.exp(-(torch.arange(2 * radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    image = torch.arange(len(x), device=x.device)[:, None, None]
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    out = torch.zeros_like(x)
    for i, weight in enumerate(weights.tolist()):
        down, right = ((i * part - 0.5).ceil().long()[:, None] for part in (angle.sin(), angle.cos()))
        row = (rows + down).clamp(0, len(rows) - 1)[:, :, None]
        column = (columns + right).clamp(0, len(columns) - 1)[:, None, :]
        out += weight * x[image, :, row, column].permute(0, 3, 1, 2)
    return out


def _replace_by_neighbors(x: Tensor, jump: Tensor, reach: int) -> Tensor:
    """Replace each pixel in place by a neighbor, from the last row and column to the first.

    `jump` holds rows and columns to the neighbor, `(B, rounds, H, W, 2)`; a border of `reach`
    pixels is unchanged.
    """
    height, width = x.shape[2:]
    cell = torch.arange(height * width, device=x.device).view(height, width)
    other = cell + width * jump[..., 0] + jump[..., 1]
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    order = [row * width + column for row, column in product(rows, columns)]
    places = []
    for turns in other.flatten(2).tolist():  # each step depends on the last, for which lists are faster than tensors
        place = list(range(height * width))
        for turn in turns:
            for here in order:
                place[here] = place[turn[here]]
        places.append(place)
    source = torch.tensor(places, device=x.device)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, source).view_as(x)
