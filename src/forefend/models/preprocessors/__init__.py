"""Preprocessors: networks from images to images of the same shape, to be put before classifiers that may not change.

Every constructor takes `channels`, and keeps in `settings` all that it was given, as JSON values:
`build(name, **net.settings)` makes its equal.
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
from forefend.models.preprocessors.denoising_unet import DenoisingUNet, narrow_unet, rtfe_unet
from forefend.models.preprocessors.dncnn import DnCnn, narrow_dncnn
from forefend.models.preprocessors.identity import Identity
from forefend.models.preprocessors.input_transforms import BitDepth, Jpeg, TotalVariation
from forefend.models.preprocessors.residual_unet import ResidualUNet
from forefend.models.preprocessors.robustifier_unet import RobustifierUNet
from forefend.models.preprocessors.rrdb import Rrdb

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
    "rtfe_unet",
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
    "rtfe-unet": rtfe_unet,
}


# Without weights, and not all of them differentiable: transforms.py says what they lack.
TRANSFORMS: dict[str, Callable[..., nn.Module]] = {
    "bit-depth": BitDepth,
    "jpeg": Jpeg,
    "total-variation": TotalVariation,
}


def build(name: str, *, channels: int, **settings: Any) -> nn.Module:
    """A new preprocessor by the name of its architecture, its weights drawn from torch's generator.

    Args:
        name: a key of `ARCHITECTURES` or `TRANSFORMS`.
        channels: of the images.
        settings: what else the architecture's constructor takes.

    Raises:
        InputError: an unknown name or setting, or a number out of range.
    """
    architecture = choose(name, ARCHITECTURES | TRANSFORMS, "preprocessor architecture")
    if not isinstance(channels, int) or channels < 1:
        raise InputError(f"A preprocessor's channels are {channels!r}, expected a whole number, at least 1.")
    try:
        return architecture(channels=channels, **settings)
    except TypeError as error:
        given = ", ".join(settings)
        raise InputError(f"The architecture {name!r} does not take the settings {given}: {error}.") from error


def name_of(network: nn.Module) -> str:
    """The architecture that a preprocessor was built as: by this name and its `settings`, `build` makes its equal.

    Args:
        network: from this shelf; a transform, which nobody trains, is not asked about.

    Raises:
        InputError: it is from elsewhere.
    """
    settings = getattr(network, "settings", {})
    like = []
    for name, architecture in ARCHITECTURES.items():
        with torch.device("meta"):
            twin = architecture(channels=1)
        if type(twin) is type(network):
            like.append((twin.settings == settings | {"channels": 1}, name))
    if not like:
        raise InputError(
            f"A {type(network).__name__} is no architecture of ours, so that no name would build it again: save its "
            "state_dict, or train a preprocessor from forefend.preprocessors."
        )
    return max(like, key=lambda pair: pair[0])[1]
