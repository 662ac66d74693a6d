"""Preprocessors: networks from images to images of the same shape, placed before frozen classifiers.

Every constructor takes `channels` and keeps its arguments in `settings`, so that `build(name, **network.settings)`
rebuilds the network.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from forefend.checks import InputError, choose
from forefend.models.preprocessors.aaa_autoencoder import AaaAutoencoder
from forefend.models.preprocessors.ape_gan import ApeGan
from forefend.models.preprocessors.dncnn import DnCnn, narrow_dncnn
from forefend.models.preprocessors.identity import Identity
from forefend.models.preprocessors.input_transforms import BitDepth, Jpeg, TotalVariation
from forefend.models.preprocessors.robustifier_unet import RobustifierUNet
from forefend.models.preprocessors.rrdb import Rrdb
from forefend.models.preprocessors.unet import DenoisingUNet, ResidualUNet, narrow_unet

__all__ = [
    "ARCHITECTURES",
    "TRANSFORMS",
    "AaaAutoencoder",
    "ApeGan",
    "BitDepth",
    "DenoisingUNet",
    "DnCnn",
    "Identity",
    "Jpeg",
    "ResidualUNet",
    "RobustifierUNet",
    "Rrdb",
    "TotalVariation",
    "build",
    "name_of",
    "narrow_dncnn",
    "narrow_unet",
]
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "aaa-autoencoder": AaaAutoencoder,
    "ape-gan": ApeGan,
    "denoising-autoencoder": partial(ResidualUNet, lateral=False),
    "dncnn": DnCnn,
    "identity": Identity,
    "narrow-dncnn": narrow_dncnn,
    "narrow-unet": narrow_unet,
    "nrp-23": Rrdb,
    "nrp-3": partial(Rrdb, blocks=3),
    "residual-unet": ResidualUNet,
    "robustifier-16": partial(RobustifierUNet, scale=16),
    "robustifier-4": RobustifierUNet,
    "robustifier-8": partial(RobustifierUNet, scale=8),
    "rtfe-autoencoder": partial(DenoisingUNet, lateral=False),
    "rtfe-unet": DenoisingUNet,
}


# Without weights, and not all differentiable.
TRANSFORMS: dict[str, Callable[..., nn.Module]] = {
    "bit-depth": BitDepth,
    "jpeg": Jpeg,
    "total-variation": TotalVariation,
}


def build(name: str, *, channels: int, **settings: Any) -> nn.Module:
    """Build a preprocessor by the name of its architecture, with weights drawn from torch's generator.

    Args:
        name: a key of `ARCHITECTURES` or `TRANSFORMS`.
        channels: channels of the images.
        settings: further arguments of the architecture.

    Returns:
        A network from images `(B, channels, H, W)` to images of the same shape.

    Raises:
        InputError: an unknown name or setting, or a number out of range.
    """
    architecture = choose(name, ARCHITECTURES | TRANSFORMS, "preprocessor architecture")
    if not isinstance(channels, int) or channels < 1:
        raise InputError(f"A preprocessor's channels are {channels!r}: give an integer of at least 1.")
    try:
        return architecture(channels=channels, **settings)
    except TypeError as error:
        given = ", ".join(settings)
        raise InputError(f"The architecture {name!r} does not take the settings {given}: {error}.") from error


def name_of(network: nn.Module) -> str:
    """Return the architecture's name with which `build` and its `settings` rebuild a preprocessor.

    Raises:
        InputError: the network is not one of `ARCHITECTURES`.
    """
    settings = getattr(network, "settings", {})
    like = []
    for name, architecture in ARCHITECTURES.items():
        with torch.device("meta"):
            rebuilt = architecture(channels=1)
        if type(rebuilt) is type(network):
            like.append((rebuilt.settings == settings | {"channels": 1}, name))
    if not like:
        raise InputError(
            f"A {type(network).__name__} is no architecture of forefend.preprocessors: save its state_dict yourself, "
            "or train a preprocessor of this package."
        )
    return max(like, key=lambda pair: pair[0])[1]
