"""Growing: training images that are small at first, where networks and threat model allow it, so that steps cost less.

An l∞ radius is in pixel values and means the same at every size; other radii, and what is kept for each pixel, do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from forefend.checks import InputError
from forefend.recipes.base import Memory, Networks, Recipe
from forefend.threat_models.base import ThreatModel

Size = tuple[int, int]  # height and width, pixels


@dataclass(frozen=True)
class Sizes:
    """Which share of their own height and width training images have, in equal spans of training.

    Images that are held out, or that the watch looks at, always keep their size. A classifier in training learns
    along. A frozen guide teaches only as well as it knows small images, which most were never shown.

    Args:
        shares: above 0 and at most 1, the last one 1, so that training ends on the images themselves (ours: a half,
            then three quarters, then all).

    Raises:
        InputError: a share out of range, or a last one below 1.

    Source: Tan and Le, 2104.00298 (progressive learning), without the regularization that grows along.
    """

    shares: tuple[float, ...] = (1 / 2, 3 / 4, 1.0)

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share <= 1 for share in self.shares) or self.shares[-1] != 1:
            raise InputError(
                f"Images cannot have the shares {list(self.shares)} of their size, expected numbers above 0 and at "
                "most 1, the last one 1."
            )

    def at(self, progress: float, size: Size) -> Size:
        """Height and width at a moment of training, of images that have this `size`; whole pixels, at least 1.

        Args:
            progress: share of the training done, in [0, 1).
            size: of the images themselves.
        """
        return _part(self.shares[int(progress * len(self.shares))], size)

    def resized(self, x: Tensor, progress: float) -> Tensor:
        """The images at this moment's size, antialiased; the very same where that is their own.

        Args:
            x: images, `(B, C, H, W)` in [0, 1].
            progress: share of the training done, in [0, 1).
        """
        height, width = x.shape[2:]
        size = self.at(progress, (height, width))
        if size == (height, width):
            return x
        # The weights sum to 1 up to rounding: white would leave the box without the clamp.
        return F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)

    def smaller(self, size: Size) -> list[Size]:
        """The sizes that images of this `size` take on the way to it, smallest first."""
        return sorted({_part(share, size) for share in self.shares} - {size})

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse a threat model whose radius means something else at another size.

        Raises:
            InputError: it is not l∞.
        """
        threats = [v for f in fields(recipe) if isinstance(v := getattr(recipe, f.name), ThreatModel)]  # type: ignore[arg-type]
        other = next((threat for threat in threats if threat.norm != "Linf"), None)
        if other is not None and set(self.shares) != {1}:
            raise InputError(
                f"The radius of {other} means something else on smaller images: leave --sizes away, or use Linf:RADIUS."
            )

    def check_cast(self, networks: Networks, x: Tensor, memory: Memory) -> None:
        """Refuse networks that do not take the smaller images, and what is kept for each pixel; without gradients.

        Args:
            networks: the networks in crafting form.
            x: a few images of full size, `(B, C, H, W)` in [0, 1].
            memory: what recipe and inner attack keep for each image.

        Raises:
            InputError: a network refuses a smaller size, or answers in another shape than at full size or with what is
                no number; or perturbations are kept at full size.
        """
        for size in self.smaller((x.shape[2], x.shape[3])):
            for name, tensor in memory.items():
                if tensor.ndim > 2 and tensor.shape[-2:] == x.shape[2:]:
                    raise InputError(
                        f"What is kept as {name!r} has every pixel of the full size, and images would begin with "
                        f"{_words(size)}: leave --sizes away, or --inner warm-started."
                    )
            small = F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)
            for name, network in _networks(networks):
                wanted = small.shape if network is networks.preprocessor else network(x).shape
                _ask(name, network, small, wanted)


def _ask(name: str, network: Callable[[Tensor], Any], small: Tensor, wanted: tuple[int, ...]) -> None:
    """Let a network answer smaller images, and refuse it if it does not do so with finite numbers of this shape."""
    try:
        output = network(small)
        shape = getattr(output, "shape", None)
        reason = "" if shape == wanted else f"it answers with shape {shape and tuple(shape)} and not {tuple(wanted)}"
        if not reason and not bool(output.isfinite().all()):
            reason = "it answers with NaN or infinite numbers"
    except Exception as error:  # others' networks refuse a size with whatever they like: an assertion, an index, ...
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    if reason:
        raise InputError(
            f"Images of {_words((small.shape[2], small.shape[3]))}, with which training would begin, do not fit {name} "
            f"({reason}): leave --sizes away, or take a network for every size."
        )


def _networks(networks: Networks) -> Iterator[tuple[str, Callable[[Tensor], Any]]]:
    """The networks that take part, with what to call them; an identity that stands for none does not."""
    yield "the preprocessor", networks.preprocessor
    for guide in networks.guides:
        yield guide.name, guide
    for name, network in (("the classifier", networks.classifier), ("the discriminator", networks.discriminator)):
        if next(network.parameters(), None) is not None:
            yield name, network


def _part(share: float, size: Size) -> Size:
    height, width = (max(1, round(share * side)) for side in size)
    return height, width


def _words(size: Size) -> str:
    return f"{size[0]} × {size[1]} pixels"


FULL = Sizes((1.0,))
SIZES: dict[str, Sizes] = {"as-published": FULL, "growing": Sizes()}
