"""Images that a client sends as JSON arrays, with the range of their numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from forefend.serving.pictures import Expected, fitting
from forefend.serving.request_error import RequestError

RANGES = {"0-1": 1.0, "0-255": 255.0}
FORM = '{"images": [IMAGE, ...], "range": "0-255" or "0-1"}'


def read_json(content: bytes, expected: Expected, most_images: int) -> list[Tensor]:
    """Return the images of a JSON body, each `(C, H, W)` float32 in [0, 1].

    An image is nested lists `(C, H, W)`, or `(H, W, C)` where only that fits, or `(H, W)` for one channel.

    Raises:
        RequestError: it is not such JSON, holds NaN or text, or the numbers are not of the range that it names.
    """
    given = _object(content)
    scale = RANGES.get(given["range"]) if isinstance(given["range"], str) else None
    if scale is None:
        raise RequestError(422, f'The range is {_shown(given["range"])}, expected "0-255" or "0-1".')
    images = given["images"]
    if not isinstance(images, list) or not images:
        raise RequestError(422, f"The images are {_shown(images)}, expected a list of at least one image.")
    if len(images) > most_images:
        counts = f"{len(images)} images, expected at most {most_images}"
        raise RequestError(413, f"The request has {counts}: send several requests.")
    return [_image(image, scale, expected, f"Image {number}") for number, image in enumerate(images, start=1)]


def _object(content: bytes) -> dict[str, Any]:
    try:
        given = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        reason = str(error).partition("\n")[0][:100]
        raise RequestError(400, f"The body is not JSON ({reason}), expected {FORM}.") from None
    if not isinstance(given, dict) or given.keys() != {"images", "range"}:
        keys = ", ".join(map(_shown, list(given)[:5])) if isinstance(given, dict) else ""
        raise RequestError(422, f"The body holds {keys or 'no keys'}, expected {FORM}.")
    return given


def _refuse_constant(name: str) -> NoReturn:
    raise RequestError(422, f"The body holds {name}, expected finite numbers.")


def _image(given: Any, scale: float, expected: Expected, title: str) -> Tensor:
    try:
        values = np.asarray(given) if isinstance(given, list) else None
    except (ValueError, OverflowError):  # lists of several lengths
        values = None
    if values is None or values.dtype.kind not in "fiu" or not values.size:
        raise RequestError(422, f"{title} is not an array of numbers, expected lists of one length at each level.")
    if values.ndim not in (2, 3):
        raise RequestError(422, f"{title} has {values.ndim} dimensions, expected (channels, height, width).")
    _check_range(values, scale, title)
    x = torch.from_numpy(values.astype(np.float32)).div_(scale)
    x = next((form for form in _forms(x) if _fits(form, expected)), x if x.ndim == 3 else x[None])
    return fitting(x.contiguous(), expected, title)


def _forms(x: Tensor) -> Iterator[Tensor]:
    yield from (x, x.permute(2, 0, 1)) if x.ndim == 3 else (x[None],)


def _fits(x: Tensor, expected: Expected) -> bool:
    return x.shape[0] == expected.shape[0] and (expected.any_size or tuple(x.shape) == expected.shape)


def _check_range(values: np.ndarray[Any, Any], scale: float, title: str) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= scale):
        raise RequestError(422, f'{title} ranges over [{low:.6g}, {high:.6g}], and its given range is "0-{scale:g}".')
    if scale > 1 and 0 < high <= 1:
        raise RequestError(
            422, f'{title} holds no number above 1, and its given range is "0-255": multiply by 255, or say "0-1".'
        )


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float) and len(str(value)) < 40 else f"a {type(value).__name__}"
