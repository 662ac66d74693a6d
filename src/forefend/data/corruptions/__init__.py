"""Common corruptions of images, in five severities.

Eighteen of the nineteen corruptions of Hendrycks and Dietterich (1903.12261), with their constants;
frost needs photographs and is missing. Each is a function `(x, severity, *, rng) -> x` of images in
[0, 1], `(B, C, H, W)`. The result for an image does not depend on its batch. Results are not the
published images: pixels stay floats where the authors round to 8 bits, and the random numbers
differ.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from forefend.checks import InputError, check_images, choose
from forefend.data.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from forefend.data.corruptions.digital import contrast, elastic_transform, jpeg_compression, pixelate, saturate
from forefend.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from forefend.data.corruptions.severity import SEVERITIES, check_severity
from forefend.data.corruptions.spatter import spatter
from forefend.data.corruptions.weather import brightness, fog, snow
from forefend.runtime.rng import KeyedRNG, as_rng

__all__ = ["COLOR_ONLY", "CORRUPTIONS", "SEVERITIES", "Corruption", "check_severity", "corrupt", "find_corruption"]


Corruption = Callable[..., Tensor]
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "speckle_noise": speckle_noise,
    "defocus_blur": defocus_blur,
    "gaussian_blur": gaussian_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "fog": fog,
    "brightness": brightness,
    "spatter": spatter,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "saturate": saturate,
}
COLOR_ONLY = ("saturate",)  # not defined for gray images


def find_corruption(name: str) -> Corruption:
    """Return the corruption with a name."""
    if name == "frost":
        raise InputError("Frost needs photographs of frost and is not available: use a published set instead.")
    return choose(name, CORRUPTIONS, "corruption")


def corrupt(name: str, x: Tensor, severity: int, *, rng: KeyedRNG | None = None) -> Tensor:
    """Return corrupted images.

    Args:
        name: the corruption, such as "fog".
        x: images, `(B, C, H, W)`, float in [0, 1]; C is 1 or 3.
        severity: 1, 2, 3, 4 or 5.
        rng: the random generator; each corruption and severity draws its own numbers. None numbers
            the images from 0 and uses seed 0.

    Returns:
        Images in [0, 1], of the shape of `x`.

    Raises:
        InputError: an unknown name, or unsuitable images or severity.

    >>> import torch
    >>> corrupt("brightness", torch.full((1, 1, 8, 8), 0.5), severity=5).amax()
    tensor(0.8000)
    """
    rng = as_rng(rng, x)
    corruption = find_corruption(name)
    check_images(x)
    if x.shape[1] not in (1, 3):
        raise InputError(f"Images have {x.shape[1]} channels, expected 1 or 3: corruptions are made for photographs.")
    check_severity(severity)
    return corruption(x, severity, rng=rng.fold_in(purpose=f"{rng.purpose}|{name}|{severity}"))
