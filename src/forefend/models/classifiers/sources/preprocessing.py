"""What a source does to a picture before its network, put inside the network and compared with the source's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from forefend.checks import InputError, import_extra
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.resized import Resized

Numbers = float | Sequence[float]
ROUNDING = 1 / 255  # mean difference by rounding to 8 bits, and by Pillow's clipping between its two passes
PIXELS, UNIT = "forefend.pixels", "[0, 1]"  # in a file: the pixels that its input takes
LARGE = 400  # height and width of a picture that every source shrinks


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image in [0, 1] to the input of a network.

    Args:
        mean: of the normalization, in [0, 1] units; required if None.
        std: likewise.
        resize: the shorter side, or (height, width); None for none.
        crop: (height, width) of the center; None for none.
        interpolation: of the resizing.
    """

    mean: Numbers | None
    std: Numbers | None
    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    interpolation: str = "bilinear"

    def before(self, network: nn.Module) -> nn.Module:
        """Return the network with these steps inside, in eval mode."""
        normalized = Normalized(network, self.mean, self.std)
        if self.resize is None and self.crop is None:
            return normalized.eval()
        return Resized(normalized, self.resize, self.crop, self.interpolation).eval()


def of_torchvision(steps: Sequence[Any], spec: str) -> Preprocessing:
    """Read the steps of a torchvision `Compose`, as timm and torchvision build them.

    Raises:
        InputError: there is a step that is not understood.
    """
    found: dict[str, Any] = {"mean": None, "std": None}
    for step in steps:
        kind = type(step).__name__
        if kind == "Resize":
            found["resize"] = as_size(step.size)
            found["interpolation"] = step.interpolation.value
        elif kind == "CenterCrop":
            found["crop"] = as_pair(step.size)
        elif kind == "Normalize":
            found |= {"mean": _floats(step.mean), "std": _floats(step.std)}
        elif kind not in ("ToTensor", "MaybeToTensor", "PILToTensor"):
            raise not_understood(spec, kind)
    return Preprocessing(**found)


def as_size(size: Any) -> int | tuple[int, int]:
    """Return a size of torchvision's: the shorter side alone, or (height, width)."""
    numbers = [size] if isinstance(size, int) else list(size)
    return int(numbers[0]) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))


def as_pair(size: Any) -> tuple[int, int]:
    """Return (height, width) of a size in which one number means both."""
    found = as_size(size)
    return (found, found) if isinstance(found, int) else found


def _floats(given: Any) -> list[float]:
    return [float(number) for number in given]


def not_understood(spec: str, what: str) -> InputError:
    """Return the error for preprocessing with a step that cannot be put inside the network."""
    return InputError(
        f"The preprocessing of {spec} has a step that forefend cannot put inside the network ({what}): prepare the "
        "images yourself, and give the network from Python, or as module:factory with mean and std."
    )


def check_agreement(own: Preprocessing, theirs: Callable[[Any], Any], size: int, spec: str) -> None:
    """Refuse preprocessing that gives another result than the source's own on a picture.

    Args:
        own: the steps that were understood.
        theirs: the source's function from a Pillow image to the network's input, `(C, H, W)`.
        size: height and width of the data's pictures.
        spec: the classifier, for the message.

    Raises:
        InputError: they differ by more than the rounding to 8 bits.
    """
    image = import_extra("PIL.Image", f"The preprocessing of {spec}", "data")
    steps = own.before(nn.Identity())
    scale = torch.tensor(own.std if isinstance(own.std, Sequence) else [own.std or 1.0]).view(-1, 1, 1)
    for pixels in (_picture(size), _picture(LARGE)):
        expected = torch.as_tensor(np.asarray(theirs(image.fromarray(pixels)))).float()
        found = steps(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
        if found.shape != expected.shape or float(((found - expected) * scale).abs().mean()) > ROUNDING:
            raise not_understood(spec, "its result differs")


def _picture(size: int) -> np.ndarray[Any, Any]:
    """A picture of smooth colors under noise, which shows how it is shrunk, `(size, size, 3)` uint8."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = np.stack([np.sin(5 * x + 3 * y), np.cos(7 * y), np.sin(9 * x * y)], 2)
    noise = np.random.default_rng(0).uniform(0, 64, waves.shape)
    return (60 + 60 * waves + noise).clip(0, 255).astype(np.uint8)


def told_by(metadata: Mapping[str, str]) -> Preprocessing | None:
    """Return the preprocessing that a file says is left to do: none, for one that forefend exported."""
    return Preprocessing(0.0, 1.0) if metadata.get(PIXELS) == UNIT else None
