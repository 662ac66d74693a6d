"""Blur, zoom and border modes that several corruptions use."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Callable[[Tensor, int], Tensor]  # positions outside a line of a length → positions inside it


def edge(place: Tensor, length: int) -> Tensor:
    """Repeat the last pixel: a a | a b c | c c."""
    return place.clamp(0, length - 1)


def reflect(place: Tensor, length: int) -> Tensor:
    """Mirror about the last pixel: c b | a b c | b a."""
    period = max(2 * (length - 1), 1)
    place = place.remainder(period)
    return torch.minimum(place, period - place)


def symmetric(place: Tensor, length: int) -> Tensor:
    """Mirror about the edge of the last pixel: b a | a b c | c b."""
    place = place.remainder(2 * length)
    return torch.minimum(place, 2 * length - 1 - place)


def gaussian_smooth(x: Tensor, sigma: float, *, truncate: float = 4, border: Border = edge) -> Tensor:
    """Return a Gaussian blur of each channel; the kernel ends at `truncate` deviations."""
    if sigma == 0:
        return x
    down, across = (_smoothing(side, sigma, truncate, border).to(x) for side in x.shape[2:])
    return down @ x @ across.T


def _smoothing(length: int, sigma: float, truncate: float, border: Border) -> Tensor:
    """Return the blur of one line as a matrix, `(length, length)`, float64, whose rows sum to 1."""
    radius = int(truncate * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1)
    weights = torch.exp(-(offset.double() ** 2) / (2 * sigma**2))
    source = border(torch.arange(length)[:, None] + offset, length)
    spread = (weights / weights.sum()).expand(length, -1)
    return torch.zeros(length, length, dtype=torch.float64).scatter_add_(1, source, spread)


def clipped_zoom(x: Tensor, factor: float) -> Tensor:
    """Enlarge the center of each image by `factor`, at least 1, to the shape of the image."""
    height, width = x.shape[2:]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    middle = x[:, :, top : top + rows, left : left + columns]
    size = (round(rows * factor), round(columns * factor))
    large = F.interpolate(middle, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[:, :, top : top + height, left : left + width]


def box_resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize like Pillow's BOX: each pixel is the mean of the pixels whose centers it contains."""
    down, across = (_boxes(old, new).to(x) for old, new in zip(x.shape[2:], size, strict=True))
    return down @ x @ across.T


def _boxes(old: int, new: int) -> Tensor:
    """Return the resizing of one line as a matrix, `(new, old)`, float64, whose rows sum to 1."""
    scale = old / new
    middle = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * scale
    distance = (torch.arange(old) + 0.5 - middle) / max(scale, 1)
    inside = ((distance > -0.5) & (distance <= 0.5)).double()
    return inside / inside.sum(1, keepdim=True)


def luma(x: Tensor) -> Tensor:
    """Return the brightness 0.299 R + 0.587 G + 0.114 B, `(B, 1, H, W)`; gray images unchanged."""
    if x.shape[1] == 1:
        return x
    return torch.einsum("bchw,c->bhw", x, x.new_tensor((0.299, 0.587, 0.114)))[:, None]
