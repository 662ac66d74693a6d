"""Contrast, saturation, elastic deformation, pixelation and JPEG compression.

Source: Hendrycks and Dietterich, 1903.12261.
"""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.checks import InputError, import_extra
from forefend.data.corruptions.resample import box_resize, gaussian_smooth, symmetric
from forefend.data.corruptions.severity import Scale
from forefend.runtime.rng import KeyedRNG

CONTRAST = Scale((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
# Factor of the saturation, and the number that is added to it.
SATURATION = Scale(
    ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
)
# As shares of the side of the image: height of the displacement, deviation of its blur, and the
# largest move of the corners of the affine map. ImageNet-C uses a side of 244 although its images
# have 224.
_WIDER = 244 / 224
ELASTIC = Scale(
    ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    (
        (2 * _WIDER, 0.7 * _WIDER, 0.1 * _WIDER),
        (2 * _WIDER, 0.08 * _WIDER, 0.2 * _WIDER),
        (0.05 * _WIDER, 0.01 * _WIDER, 0.02 * _WIDER),
        (0.07 * _WIDER, 0.01 * _WIDER, 0.02 * _WIDER),
        (0.12 * _WIDER, 0.01 * _WIDER, 0.02 * _WIDER),
    ),
)
PIXELS = Scale((0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
QUALITY = Scale((80, 65, 58, 50, 40), (25, 18, 15, 10, 7))


def contrast(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Shrink the differences of each channel from its mean over the image."""
    mean = x.mean((2, 3), keepdim=True)
    return ((x - mean) * CONTRAST.at(severity, x) + mean).clamp(0, 1)


def saturate(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Lower (severities 1 and 2) or raise the saturation; gray has the hue of red."""
    if x.shape[1] != 3:
        raise InputError("Gray images have no saturation: leave saturate out for them.")
    factor, more = SATURATION.at(severity, x)
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    spread = value - least
    red = x.new_tensor((0.0, 1.0, 1.0)).view(1, 3, 1, 1)
    towards = torch.where(
        spread > 0, (value - x) / spread.clamp_min(1e-12), red
    )  # 1 in the least channel, 0 in the top
    saturation = (factor * spread / value.clamp_min(1e-12) + more).clamp(0, 1)
    return (value * (1 - saturation * towards)).clamp(0, 1)


def elastic_transform(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Apply a random affine map, then a smooth random displacement."""
    height, sigma, reach = (share * min(x.shape[2:]) for share in ELASTIC.at(severity, x))
    corners = rng.fold_in(purpose=f"{rng.purpose}|affine").uniform(x.new_empty(len(x), 3, 2))
    x = _sampled(x, affine((2 * corners - 1) * reach, x), about_centers=True)
    noise = 2 * rng.uniform(x.new_empty(len(x), 2, *x.shape[2:])) - 1
    waves = height * gaussian_smooth(noise, sigma, truncate=3, border=symmetric) if height else 0 * noise
    return _sampled(x, _grid(x) + waves.permute(0, 2, 3, 1), about_centers=False).clamp(0, 1)


def pixelate(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Reduce the image by averaging, then enlarge it by repeating pixels."""
    share, (height, width) = PIXELS.at(severity, x), x.shape[2:]
    small = box_resize(x, (max(int(share * height), 1), max(int(share * width), 1)))
    return box_resize(small, (height, width)).clamp(0, 1)


def jpeg_compression(x: Tensor, severity: int, *, rng: KeyedRNG) -> Tensor:
    """Write and read 8-bit JPEG."""
    return jpeg(x, QUALITY.at(severity, x))


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Write 8-bit JPEG by Pillow, with 4:2:0 colors, and read it again; not differentiable."""
    pillow, read = import_extra("PIL.Image", "JPEG compression", "data"), []
    for image in (x.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        file = io.BytesIO()
        pillow.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
        read.append(np.asarray(pillow.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).to(x).contiguous() / 255


def affine(moves: Tensor, x: Tensor) -> Tensor:
    """Return the source of each pixel, `(B, H, W, 2)`, column and row, of an affine map.

    The map moves the corners of a triangle around the center by `moves`, `(B, 3, 2)` pixels.
    """
    height, width = x.shape[2:]
    side = min(height, width) // 3
    corners = torch.tensor(((side, side), (side, -side), (-side, -side)), dtype=torch.float64, device=x.device)
    corners += torch.tensor((width // 2, height // 2), device=x.device)
    moved = corners + moves.double()
    one = torch.ones(len(x), 3, 1, dtype=torch.float64, device=x.device)
    back = torch.linalg.solve(torch.cat((moved, one), 2), corners.expand(len(x), -1, -1))  # (B, 3, 2)
    place = F.pad(_grid(x).double(), (0, 1), value=1.0)
    source: Tensor = place.flatten(0, 1) @ back
    return source.view(len(x), height, width, 2).to(x)


def _grid(x: Tensor) -> Tensor:
    """Return column and row of every pixel, `(H, W, 2)`."""
    rows, columns = torch.meshgrid(*(torch.arange(side, device=x.device) for side in x.shape[2:]), indexing="ij")
    return torch.stack((columns, rows), 2).to(x)


def _sampled(x: Tensor, place: Tensor, *, about_centers: bool) -> Tensor:
    """Interpolate the images at `place`, columns and rows in pixels, `(B, H, W, 2)`.

    `about_centers` mirrors positions outside the image about the center of the last pixel,
    otherwise about its edge.
    """
    size = x.new_tensor((x.shape[3], x.shape[2]))
    scaled = 2 * place / (size - 1).clamp_min(1) - 1 if about_centers else (2 * place + 1) / size - 1
    return F.grid_sample(x, scaled, mode="bilinear", padding_mode="reflection", align_corners=about_centers)
