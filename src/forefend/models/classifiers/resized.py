"""A classifier with its resizing and cropping inside, so that images keep the size of the data everywhere else."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.feature_layers import FeatureLayers, feature_layers_of

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


@final
class Resized(nn.Module):
    """`network(crop(resize(x)))`: a network that was trained on images of another size.

    Shrinking is antialiased as in Pillow, torchvision, timm and transformers, and gradients reach the images.

    Args:
        network: images `(B, C, H', W')` to logits `(B, K)`.
        resize: the length of the shorter side, or (height, width), in pixels; None for none.
        crop: (height, width) that is cut from the center, on black where the image is smaller; None for none.
        interpolation: nearest, bilinear or bicubic. Bicubic results are clamped to [0, 1], as in 8-bit images.

    Raises:
        InputError: another interpolation.
    """

    geometry: Tensor

    def __init__(
        self,
        network: nn.Module,
        resize: int | tuple[int, int] | None,
        crop: tuple[int, int] | None,
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        if interpolation not in INTERPOLATIONS:
            raise InputError(
                f"The interpolation {interpolation!r} is not supported, expected one of {', '.join(INTERPOLATIONS)}: "
                "resize the images yourself, and give mean and std."
            )
        self.network, self.resize, self.crop, self.interpolation = network, resize, crop, interpolation
        # In a buffer, as the fingerprint covers tensors alone, and another size is another classifier.
        numbers = [*_pair(resize), *_pair(crop), INTERPOLATIONS.index(interpolation)]
        self.register_buffer("geometry", torch.tensor(numbers), persistent=False)

    @property
    def feature_layers(self) -> FeatureLayers:
        """The network's feature layers, by their names in this module.

        Raises:
            InputError: the network does not name them.
        """
        return feature_layers_of(self.network).inside("network")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of images `(B, C, H, W)` in [0, 1]."""
        if self.resize is not None:
            x = _resize(x, _size(x, self.resize), self.interpolation)
        logits: Tensor = self.network(x if self.crop is None else _center(x, *self.crop))
        return logits

    def extra_repr(self) -> str:
        """Its sizes, for the text of the network."""
        return f"resize={self.resize}, crop={self.crop}, interpolation={self.interpolation!r}"


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size or 0, 0)


def _size(x: Tensor, resize: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(resize, tuple):
        return resize
    height, width = x.shape[2:]
    short = min(height, width)  # the longer side is rounded down, as in torchvision
    return resize * height // short, resize * width // short


def _resize(x: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    if x.shape[2:] == size:
        return x
    if interpolation == "nearest":
        return F.interpolate(x, size, mode="nearest-exact")
    resized = F.interpolate(x, size, mode=interpolation, align_corners=False, antialias=True)
    return resized.clamp(0, 1) if interpolation == "bicubic" else resized


def _center(x: Tensor, height: int, width: int) -> Tensor:
    missing = [max(0, wanted - found) for wanted, found in zip((height, width), x.shape[2:], strict=True)]
    if any(missing):
        left, top = missing[1] // 2, missing[0] // 2
        x = F.pad(x, (left, missing[1] - left, top, missing[0] - top))
    top, left = round((x.shape[2] - height) / 2), round((x.shape[3] - width) / 2)
    return x[:, :, top : top + height, left : left + width]
