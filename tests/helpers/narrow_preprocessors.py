"""Every architecture in a narrow form that a test can train."""

from __future__ import annotations

from torch import nn

from forefend.models.preprocessors import build

_UNET = {"widths": [4, 6, 5], "depths": [1, 2, 1]}
SLENDER: dict[str, dict[str, object]] = {
    "aaa-autoencoder": {"width": 8},
    "ape-gan": {},
    "denoising-autoencoder": _UNET | {"lateral": False},
    "dncnn": {"depth": 5, "width": 8},
    "identity": {},
    "narrow-dncnn": {"depth": 3, "width": 8},
    "narrow-unet": _UNET,
    "nrp-23": {"blocks": 2, "width": 6, "growth": 3, "clamp": False},
    "nrp-3": {"blocks": 1, "width": 8, "growth": 4, "clamp": True},
    "residual-unet": _UNET | {"lateral": True},
    "robustifier-16": {"scale": 1},
    "robustifier-4": {"scale": 2},
    "robustifier-8": {"scale": 1},
    "rtfe-autoencoder": _UNET | {"lateral": False},
    "rtfe-unet": _UNET,
}


def slender(name: str, channels: int = 3) -> nn.Module:
    """Return a new preprocessor of this architecture with few channels."""
    return build(name, channels=channels, **SLENDER[name])
