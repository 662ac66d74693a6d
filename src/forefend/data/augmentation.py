"""Random crops and flips of a whole batch at once, with the randomness handed in."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.checks import InputError
from forefend.runtime.rng import KeyedRNG


def crop_flip(x: Tensor, uniform: Tensor, *, pad: int = 4) -> Tensor:
    """Each image padded with zeros, cropped back to its size at a random place, and mirrored with probability ½.

    An image and its three numbers give the same result whatever else is in the batch; two batches (say clean and
    adversarial twins) move together when they are given the same numbers.

    Args:
        x: `(B, C, H, W)`, floating point.
        uniform: `(B, 3)` in [0, 1): they choose the row offset, the column offset, and the mirroring (below ½).
        pad: zeros added on each side, in pixels; the offsets are 0 … 2·pad, and `pad` leaves the image in place.

    Raises:
        InputError: `uniform` is not `(B, 3)`, or `pad` is negative.

    Source: the augmentation of Madry et al., arXiv:1706.06083 (pad 4 on 32x32 images).
    """
    if uniform.shape != (len(x), 3):
        raise InputError(f"The uniforms have shape {tuple(uniform.shape)}, expected ({len(x)}, 3): three an image.")
    if pad < 0:
        raise InputError(f"The padding is {pad}, expected 0 pixels or more.")
    height, width = x.shape[2:]
    # The clamp serves low precisions, in which a number just below 1 times the count rounds up to the count.
    offset = (uniform[:, :2] * (2 * pad + 1)).long().clamp_(max=2 * pad)
    windows = F.pad(x, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(len(x), device=x.device), :, offset[:, 0], offset[:, 1]]
    return torch.where((uniform[:, 2] < 0.5)[:, None, None, None], cropped.flip(3), cropped)


def augmentation(name: str) -> Callable[[Tensor, KeyedRNG], Tensor] | None:
    """The label-preserving changes for training images of a set: shifts and flips for photographs, None for the rest.

    A mirrored digit is no digit, and clothes and house numbers are published upright and centerd.

    Args:
        name: the set, as `load` takes it.
    """
    upright = name in ("digits", "mnist", "fashion-mnist", "svhn") or name.endswith(".npz")
    return None if upright else _shift_and_flip


def _shift_and_flip(x: Tensor, rng: KeyedRNG) -> Tensor:
    return crop_flip(x, rng.uniform(x.new_empty(len(x), 3)))
