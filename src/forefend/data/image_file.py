"""Decode one image file of an unknown source."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forefend.checks import InputError, import_extra
from forefend.runtime.files import check_regular

# Pillow would choose a decoder by the content of a file, and run Ghostscript for PostScript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
MODES = {1: "L", 3: "RGB"}
MOST_BYTES = 300_000_000
MOST_PIXELS = 89_000_000  # 267 MB as RGB; Pillow warns from here on


def decode(path: Path, size: int, channels: int = 3) -> Tensor:
    """Return the central square of an image file as `(channels, size, size)` uint8, RGB or gray.

    The image is turned as its EXIF orientation says, transparent pixels are laid over white, and
    palettes and CMYK are converted. Of an animation or a TIFF of several pages, the first is read.

    Raises:
        InputError: the file is too large, is not an image of one of `FORMATS`, is damaged, or has
            pixels of more than 8 bits in one channel.
    """
    pillow = load_pillow()
    try:
        check_regular(path, MOST_BYTES)
        with warnings.catch_warnings(action="ignore"), pillow.open(path, formats=FORMATS) as image:
            _check_pixels(path, image)
            upright = import_extra("PIL.ImageOps", "Reading images", "data").exif_transpose(image)
            square = _center_square(_convert(upright, MODES[channels]), size)
    except (InputError, MemoryError):
        raise
    except pillow.DecompressionBombError:
        raise InputError(f"{path} has more than {MOST_PIXELS:,} pixels: scale it down or remove it.") from None
    except pillow.UnidentifiedImageError:
        raise InputError(f"{path} is not an image of {', '.join(FORMATS)}: convert or remove it.") from None
    except Exception as error:  # a damaged file raises operating system, syntax, value, struct or type errors
        raise InputError(f"{path} is not a readable image ({type(error).__name__}): repair or remove it.") from None
    return torch.from_numpy(np.array(square)).view(size, size, channels).permute(2, 0, 1)


def load_pillow() -> Any:
    """Import Pillow, or raise the sentence that it is missing."""
    return import_extra("PIL.Image", "Reading images", "data")


def _check_pixels(path: Path, image: Any) -> None:
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise load_pillow().DecompressionBombError
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise InputError(f"{path} has pixels of mode {image.mode}, expected 8-bit ones: convert it first.")


def _convert(image: Any, mode: str) -> Any:
    if image.has_transparency_data:
        pillow, image = load_pillow(), image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _center_square(image: Any, size: int) -> Any:
    """Resize the shorter side to `size` and crop, computing only the pixels that the crop keeps."""
    width, height = image.size
    short = min(width, height)
    resized = size * width // short, size * height // short
    left, top = (round((side - size) / 2) for side in resized)
    scale_x, scale_y = width / resized[0], height / resized[1]
    right, bottom = min((left + size) * scale_x, width), min((top + size) * scale_y, height)
    box = (left * scale_x, top * scale_y, right, bottom)
    return image.resize((size, size), load_pillow().Resampling.BILINEAR, box=box)
