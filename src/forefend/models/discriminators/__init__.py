"""Discriminators: networks from images to one logit each, trained against a preprocessor (a GAN's discriminators).

A high logit says the image looks clean, a low one that a preprocessor made it. Every constructor takes `channels` and
`size`, and keeps them in `settings`: `build(name, **net.settings)` makes its equal.
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
    """A new discriminator by the name of its architecture, its weights drawn from torch's generator.

    Args:
        name: a key of `ARCHITECTURES`.
        channels: of the images, from 1.
        size: height and width of the images in pixels, from 1.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    architecture = choose(name, ARCHITECTURES, "discriminator architecture")
    for what, number in (("channels", channels), ("size", size)):
        if not isinstance(number, int) or number < 1:
            raise InputError(f"A discriminator's {what} is {number!r}, expected a whole number, at least 1.")
    return architecture(channels=channels, size=size)
