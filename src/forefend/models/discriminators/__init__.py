"""Discriminators: networks from images to one logit each, trained against a preprocessor.

A high logit means a clean image, a low one an output of the preprocessor. Every constructor takes `channels` and
`size` and keeps them in `settings`, so that `build(name, **network.settings)` rebuilds the network.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from forefend.checks import InputError, choose
from forefend.models.discriminators.ape_gan import ApeGanDiscriminator
from forefend.models.discriminators.nrp import NrpDiscriminator

__all__ = ["ARCHITECTURES", "ApeGanDiscriminator", "NrpDiscriminator", "build"]
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "ape-gan": ApeGanDiscriminator,
    "nrp": NrpDiscriminator,
}


def build(name: str, *, channels: int, size: int) -> nn.Module:
    """Build a discriminator by the name of its architecture, with weights drawn from torch's generator.

    Args:
        name: a key of `ARCHITECTURES`.
        channels: channels of the images, from 1.
        size: height and width of the images in pixels, from 1.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    architecture = choose(name, ARCHITECTURES, "discriminator architecture")
    for what, number in (("channels", channels), ("size", size)):
        if not isinstance(number, int) or number < 1:
            raise InputError(f"A discriminator's {what} is {number!r}: give an integer of at least 1.")
    return architecture(channels=channels, size=size)
