"""Decode one picture of an unknown source."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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
_DAMAGED_EXIF = (OSError, SyntaxError, ValueError, LookupError, TypeError, struct.error)


class PixelCountError(InputError):
    """A picture with more pixels than are decoded."""


def decode(picture: Path | bytes, size: int | None, channels: int = 3, title: str = "") -> Tensor:
    """Return the central square of a picture as `(channels, size, size)` uint8, RGB or gray.

    The picture is turned as its EXIF orientation says, transparent pixels are laid over white, and
    palettes and CMYK are converted. Pixels that are all 0 or 1 are black and white. Of an animation
    or a TIFF of several pages, the first is read.

    Args:
        picture: a file, or its content.
        size: of the square in pixels; None keeps the picture as it is, `(channels, height, width)`.
        channels: 3 for RGB, 1 for gray.
        title: what messages call it; by default its path.

    Raises:
        InputError: the file is too large, is not an image of one of `FORMATS`, is damaged, or has
            pixels of more than 8 bits in one channel.
    """
    title = title or str(picture)
    with opened(picture, title) as image:
        return from_pil(image, size, channels, title)


def dimensions(picture: Path | bytes, title: str = "") -> tuple[int, int]:
    """Return height and width of a picture, turned as its EXIF orientation says; only TIFF is decoded for it."""
    with opened(picture, title or str(picture)) as image:
        if image.format == "TIFF":  # Pillow turns it itself, its size at another time in each version
            _turn(image)
            return image.height, image.width
        width, height = image.size
        with suppress(*_DAMAGED_EXIF):
            if image.getexif().get(0x0112, 1) >= 5:  # turned by a quarter
                return width, height
        return height, width


def from_pil(image: Any, size: int | None, channels: int, title: str) -> Tensor:
    """Return a Pillow image as `decode` returns a picture; the image may be turned in place."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise InputError(
            f"{title} has pixels of mode {image.mode}, expected 8-bit ones: convert it first, by pixels // 257 where "
            "65535 is white, as the file does not say what is."
        )
    _turn(image)
    image = _convert(image, MODES[channels])
    if size is not None:
        image = _center_square(image, size)
    return torch.from_numpy(np.array(image)).view(image.height, image.width, channels).permute(2, 0, 1)


@contextmanager
def opened(
    picture: Path | bytes, title: str, formats: Sequence[str] = FORMATS, most_pixels: int = MOST_PIXELS
) -> Iterator[Any]:
    """Open a picture with Pillow; every error, also of the block, becomes an InputError.

    Args:
        picture: a file, or its content.
        title: what messages call it.
        formats: names of Pillow's formats that are read.
        most_pixels: the largest size that is decoded.

    Raises:
        InputError: as for `decode`; a `PixelCountError` for more pixels.
    """
    pillow = load_pillow()
    try:
        if isinstance(picture, Path):
            check_regular(picture, MOST_BYTES)
        source = picture if isinstance(picture, Path) else io.BytesIO(picture)
        with warnings.catch_warnings(action="ignore"), pillow.open(source, formats=formats) as image:
            if image.width * image.height > most_pixels:
                raise pillow.DecompressionBombError
            yield image
    except (InputError, MemoryError):
        raise
    except pillow.DecompressionBombError:
        raise PixelCountError(f"{title} has more than {most_pixels:,} pixels: scale it down or remove it.") from None
    except pillow.UnidentifiedImageError:
        raise InputError(f"{title} is not an image of {', '.join(formats)}: convert or remove it.") from None
    except Exception as error:  # a damaged file raises operating system, syntax, value, struct or type errors
        raise InputError(f"{title} is not a readable image ({type(error).__name__}): repair or remove it.") from None


def load_pillow() -> Any:
    """Import Pillow, or raise the sentence that it is missing."""
    return import_extra("PIL.Image", "Reading images", "data")


def _convert(image: Any, mode: str) -> Any:
    if image.has_transparency_data:
        pillow, image = load_pillow(), image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    if image.mode == "L" and image.getextrema() == (0, 1):  # two levels that were saved with 8 bits
        image = image.point([0, *[255] * 255])
    return image.convert(mode)


def _turn(image: Any) -> None:
    """Turn an image as its EXIF data say; damaged EXIF data say nothing."""
    image.load()
    with suppress(*_DAMAGED_EXIF):
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
