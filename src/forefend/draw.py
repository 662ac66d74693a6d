"""Draw: randomness keyed by seed, trial, restart, step and image.

The numbers for an image depend on its key alone, so the same image gets the same start whatever batch it travels in:
refill, resume, halved batches and more processes change no verdict. There is no state to save.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# SplitMix64's constants (Steele, Lea and Flood, 2014), as the signed integers that torch counts with.
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_SINGLE = 2**-24  # float32 holds 24 bits


@dataclass(frozen=True)
class Draw:
    """A source of random numbers for one batch of images.

    Args:
        index: dataset index of each image, `(B,)` int64.
        seed: the run's seed.
        trial: what the numbers are for: an attack's identity, "augment", …
        restart: which restart of the attack.
        step: which step of training or of the attack.
    """

    index: Tensor
    seed: int = 0
    trial: str = ""
    restart: int = 0
    step: int = 0

    def uniform(self, x: Tensor) -> Tensor:
        """Uniform in [0, 1), shaped and typed like `x`, whose first dimension is the batch."""
        return (self._bits(x).to(torch.float64) * _SINGLE).to(x.dtype)

    def normal(self, x: Tensor) -> Tensor:
        """Standard normal, shaped and typed like `x`, by inverting the distribution function."""
        middle = (self._bits(x).to(torch.float64) + 0.5) * _SINGLE
        return torch.special.ndtri(middle).to(x.dtype)

    def at(self, *, trial: str | None = None, restart: int | None = None, step: int | None = None) -> Draw:
        """The same images' source for another trial, restart or step."""
        return replace(
            self,
            trial=self.trial if trial is None else trial,
            restart=self.restart if restart is None else restart,
            step=self.step if step is None else step,
        )

    def select(self, rows: Tensor) -> Draw:
        """The source for some of the images, by row number or mask."""
        return replace(self, index=self.index[rows.to(self.index.device)])

    def number(self) -> int:
        """One integer in [0, 2**63) for the whole batch, whatever images it holds: which guide, which order."""
        return self._key() >> 1

    def _key(self) -> int:
        key = f"{self.seed}|{self.trial}|{self.restart}|{self.step}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

    def _bits(self, x: Tensor) -> Tensor:
        """24 random bits for each element of `x`, int64."""
        index = self.index.to(x.device, torch.int64)
        key = self._key()
        image = _mix(index * _WEYL + (key - 2**64 if key >= 2**63 else key))
        place = torch.arange(1, x.shape[1:].numel() + 1, device=x.device, dtype=torch.int64)
        return (_shift(_mix(image[:, None] + place * _WEYL), 40)).view(x.shape)


def _shift(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros: torch's own shift keeps the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    bits = (bits ^ _shift(bits, 30)) * _MIX_1
    bits = (bits ^ _shift(bits, 27)) * _MIX_2
    return bits ^ _shift(bits, 31)
