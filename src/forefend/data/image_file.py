"""Decode one image file of an unknown source."""

from __future__ import annotations

import struct
import warnings
from contextlib import suppress
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
            _turn(image)
            square = _center_square(_convert(image, MODES[channels]), size)
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


def _turn(image: Any) -> None:
    """Turn an image as its EXIF data say; damaged EXIF data say nothing."""
    image.load()
    with suppress(OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error):
        import_extra("PIL.ImageOps", "Reading images", "data").exif_transpose(image, in_place=True)


def _center_square(image: Any, size: int) -> Any:
    """Resize the shorter side to `size` and crop."""
    image = _crop(image, min(*image.size) * 8, min(*image.size) * 8)  # a strip would grow without bound
    short = min(image.size)
    width, height = (size * side // short for side in image.size)
    return _crop(image.resize((width, height), load_pillow().Resampling.BILINEAR), size, size)


def _crop(image: Any, width: int, height: int) -> Any:
    """Crop the center of an image to at most these sides."""
    width, height = min(width, image.width), min(height, image.height)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    box = (left, top, left + width, top + height)
    return image if box == (0, 0, *image.size) else image.crop(box)
