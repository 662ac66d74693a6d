"""Pictures of clients: PNG and JPEG in the form that the classifier takes; nothing is guessed."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.data.image_file import PixelCountError, from_pil, load_pillow, opened
from forefend.serving.request_error import RequestError

FORMATS = ("PNG", "JPEG")
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg"}  # MPO: a JPEG with further pictures behind it
_BIT_DEPTH = 24  # the byte of a PNG that names the bits of one channel
GAIN = 8  # of a difference that is shown


@dataclass(frozen=True)
class Expected:
    """The images that a server takes.

    Args:
        shape: channels, height and width.
        resize: whether pictures of other sizes are resized (the shorter side) and cropped (the center).
        any_size: whether pictures of other sizes are taken as they are.
        most_pixels: of a picture.
    """

    shape: tuple[int, int, int]
    resize: bool
    any_size: bool
    most_pixels: int


def read_picture(content: bytes, expected: Expected, title: str, declared: str = "") -> Tensor:
    """Return a picture as `(C, H, W)` float32 in [0, 1].

    Args:
        content: the file.
        expected: the images that the server takes.
        title: what messages call the picture.
        declared: the content type that the client gave; empty for none.

    Raises:
        RequestError: it is no PNG or JPEG, is damaged, too large, animated, CMYK or of 16 bits, or does not fit.
        InputError: likewise.
    """
    if not content:
        raise RequestError(422, f"{title} is empty: send a PNG or JPEG file.")
    try:
        with opened(content, title, FORMATS, expected.most_pixels) as image:
            _check_kind(image, content, title, declared)
            pixels = from_pil(image, expected.shape[1] if expected.resize else None, 3, title)
    except PixelCountError as error:
        raise RequestError(413, str(error)) from None
    return fitting(_channels(pixels.float().div_(255), expected.shape[0], title), expected, title)


def fitting(x: Tensor, expected: Expected, title: str) -> Tensor:
    """Return an image if it has the expected shape.

    Raises:
        RequestError: it has not.
    """
    if x.shape[0] == expected.shape[0] and (expected.any_size or tuple(x.shape) == expected.shape):
        return x
    found, wanted = (" × ".join(map(str, shape)) for shape in (tuple(x.shape), expected.shape))
    raise RequestError(
        422,
        f"{title} is {found} (channels, height, width), expected {wanted}: resize it, or start the server with "
        "--resize for pictures.",
    )


def as_png(x: Tensor) -> str:
    """Return an image, `(C, H, W)`, as a data address of a PNG; pixels are clamped to [0, 1] and rounded to 8 bits."""
    pixels = x.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).squeeze(2).numpy()
    file = io.BytesIO()
    load_pillow().fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def difference(x: Tensor, processed: Tensor) -> Tensor:
    """Return the absolute difference of two images, multiplied by `GAIN`."""
    return (x - processed).abs() * GAIN


def _check_kind(image: Any, content: bytes, title: str, declared: str) -> None:
    kind = TYPES[image.format]
    if declared.startswith("image/") and declared not in (kind, "image/jpg"):
        raise RequestError(415, f"{title} was sent as {declared} and is {kind}: correct the content type.")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise RequestError(422, f"{title} is animated, expected one picture: send one frame.")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA") or (
        image.format == "PNG" and content[_BIT_DEPTH] > 8
    ):
        shown = f"{content[_BIT_DEPTH]} bits in a channel" if image.format == "PNG" else f"{image.mode} pixels"
        raise RequestError(422, f"{title} has {shown}, expected 8-bit gray or RGB: convert it first.")


def _channels(x: Tensor, channels: int, title: str) -> Tensor:
    """Return an RGB image with the expected channels."""
    if channels == 3:
        return x
    if channels != 1:
        raise RequestError(
            422, f"{title} is a picture, expected images of {channels} channels: send them as JSON arrays."
        )
    if not (torch.equal(x[0], x[1]) and torch.equal(x[0], x[2])):
        raise RequestError(422, f"{title} is in color, expected a gray picture: convert it first.")
    return x[:1]
