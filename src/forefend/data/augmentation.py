"""Random crops and flips of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.rng import KeyedRNG


def crop_flip(x: Tensor, uniform: Tensor, *, pad: int = 4) -> Tensor:
    """Crop each image at a random place of its zero-padded copy, and flip it with probability ½.

    The result for an image depends only on its three numbers, so that clean and adversarial batches
    with the same numbers are augmented alike.

    Args:
        x: `(B, C, H, W)`, floating point.
        uniform: `(B, 3)` in [0, 1), which set the row offset, the column offset and the flip (below
            ½).
        pad: zeros added on each side, in pixels; offsets are 0 … 2·pad.

    Returns:
        The augmented images, of the shape of `x`.

    Raises:
        InputError: `uniform` is not `(B, 3)`, or `pad` is negative.

    Source: the augmentation of Madry et al., arXiv:1706.06083 (pad 4 on 32x32 images).
    """
    if uniform.shape != (len(x), 3):
        raise InputError(f"The uniforms have shape {tuple(uniform.shape)}, expected ({len(x)}, 3).")
    if pad < 0:
        raise InputError(f"The padding is {pad}, expected 0 pixels or more.")
    height, width = x.shape[2:]
    # In low precision, a number just below 1 times the number of offsets rounds up to it: clamp.
    offset = (uniform[:, :2] * (2 * pad + 1)).long().clamp_(max=2 * pad)
    windows = F.pad(x, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(len(x), device=x.device), :, offset[:, 0], offset[:, 1]]
    return torch.where((uniform[:, 2] < 0.5)[:, None, None, None], cropped.flip(3), cropped)


def augmentation(name: str) -> Callable[[Tensor, KeyedRNG], Tensor] | None:
    """Return `crop_flip` for a set of photographs, called as in `load`, and None for other sets.

    A flipped digit may change its label, and Fashion-MNIST and SVHN are published centered.
    """
    centered = name in ("digits", "mnist", "fashion-mnist", "svhn") or name.lower().endswith(".npz")
    return None if centered else random_crop_flip


def random_crop_flip(x: Tensor, rng: KeyedRNG) -> Tensor:
    """Shift and mirror images, `(B, C, H, W)`, at random, as `crop_flip` does."""
    return crop_flip(x, rng.uniform(x.new_empty(len(x), 3)))
