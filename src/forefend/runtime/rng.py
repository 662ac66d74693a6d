"""Draw: randomness keyed by seed, purpose, restart, step and image.

The numbers for an image depend on its key alone, so the same image gets the same start whatever batch it travels in:
refill, resume, halved batches and more processes change no verdict. There is no state to save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# SplitMix64's constants (Steele, Lea and Flood, 2014), as the signed integers that torch counts with.
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_SINGLE = 2**-24  # float32 holds 24 bits


@dataclass(frozen=True)
class KeyedRNG:
    """A source of random numbers for one batch of images.

    Args:
        index: dataset index of each image, `(B,)` int64.
        seed: the run's seed.
        purpose: what the numbers are for: an attack's identity, "augment", …
        restart: which restart of the attack; also `(B,)`, where images of one batch are at different ones.
        step: which step of training or of the attack; also `(B,)`.
    """

    index: Tensor
    seed: int = 0
    purpose: str = ""
    restart: int | Tensor = 0
    step: int | Tensor = 0

    def uniform(self, x: Tensor) -> Tensor:
        """Uniform in [0, 1), shaped and typed like `x`, whose first dimension is the batch."""
        return (self._bits(x).to(torch.float64) * _SINGLE).to(x.dtype)

    def normal(self, x: Tensor) -> Tensor:
        """Standard normal, shaped and typed like `x`, by inverting the distribution function."""
        middle = (self._bits(x).to(torch.float64) + 0.5) * _SINGLE
        return torch.special.ndtri(middle).to(x.dtype)

    def fold_in(
        self, *, purpose: str | None = None, restart: int | Tensor | None = None, step: int | Tensor | None = None
    ) -> KeyedRNG:
        """The same images' source for another purpose, restart or step."""
        return replace(
            self,
            purpose=self.purpose if purpose is None else purpose,
            restart=self.restart if restart is None else restart,
            step=self.step if step is None else step,
        )

    def select(self, rows: Tensor) -> KeyedRNG:
        """The source for some of the images, by row number or mask."""
        rows = rows.to(self.index.device)
        restart, step = (v[rows] if isinstance(v, Tensor) else v for v in (self.restart, self.step))
        return replace(self, index=self.index[rows], restart=restart, step=step)

    def integer(self) -> int:
        """One integer in [0, 2**63) for the whole batch, whatever images it holds: which guide, which order."""
        if isinstance(self.restart, Tensor) or isinstance(self.step, Tensor):
            raise ValueError("one number for a whole batch needs one restart and one step")
        return self._key(self.restart, self.step) >> 1

    def _key(self, restart: int, step: int) -> int:
        key = f"{self.seed}|{self.purpose}|{restart}|{step}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

    def _keys(self) -> Tensor:
        """The key of each image as the signed integer of the same bits, `(B,)` or one for all."""
        if not (isinstance(self.restart, Tensor) or isinstance(self.step, Tensor)):
            return torch.tensor(_signed(self._key(self.restart, self.step)))
        pairs = list(zip(_each(self.restart, self.index), _each(self.step, self.index), strict=True))
        keys = {pair: _signed(self._key(*pair)) for pair in set(pairs)}
        return torch.tensor([keys[pair] for pair in pairs], dtype=torch.int64)

    def _bits(self, x: Tensor) -> Tensor:
        """24 random bits for each element of `x`, int64."""
        index = self.index.to(x.device, torch.int64)
        image = _mix(index * _WEYL + self._keys().to(x.device))
        place = torch.arange(1, x.shape[1:].numel() + 1, device=x.device, dtype=torch.int64)
        return (_shift(_mix(image[:, None] + place * _WEYL), 40)).view(x.shape)


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Put torch's own generators, which a randomized pipeline draws from, into a known state; give them back after."""
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if started else []):
        torch.manual_seed(seed)
        yield


def _each(value: int | Tensor, index: Tensor) -> list[int]:
    return value.tolist() if isinstance(value, Tensor) else [value] * len(index)


def _signed(key: int) -> int:
    return key - 2**64 if key >= 2**63 else key


def _shift(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros: torch's own shift keeps the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def _mix(bits: Tensor) -> Tensor:
    """SplitMix64's finaliser: every input bit reaches every output bit."""
    bits = (bits ^ _shift(bits, 30)) * _MIX_1
    bits = (bits ^ _shift(bits, 27)) * _MIX_2
    return bits ^ _shift(bits, 31)
