"""Random numbers keyed by seed, purpose, restart, step and image.

The numbers of an image depend only on its key, not on its batch. Resuming, halving batches and
adding processes therefore change no result, and there is no state to save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

# Constants of SplitMix64 (Steele, Lea and Flood, 2014) as signed integers.
_WEYL = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64
_SINGLE = 2**-24  # float32 holds 24 bits
Built = TypeVar("Built")


@dataclass(frozen=True)
class KeyedRNG:
    """A source of random numbers for one batch of images.

    Args:
        index: dataset index of each image, `(B,)` int64.
        seed: the seed of the run.
        purpose: the use of the numbers, such as the identity of an attack or "augment".
        restart: number of the restart of an attack; `(B,)` where images of one batch are at
            different restarts.
        step: number of the step of training or of an attack; also `(B,)`.

    >>> rng = KeyedRNG(torch.tensor([7, 8]), seed=1)
    >>> rng.uniform(torch.empty(2, 3)).shape
    torch.Size([2, 3])
    >>> one_image = rng.select(torch.tensor([1])).uniform(torch.empty(1, 3))
    >>> torch.equal(one_image[0], rng.uniform(torch.empty(2, 3))[1])
    True
    """

    index: Tensor
    seed: int = 0
    purpose: str = ""
    restart: int | Tensor = 0
    step: int | Tensor = 0

    def uniform(self, x: Tensor) -> Tensor:
        """Return uniform numbers in [0, 1) of the shape and type of `x`, a batch."""
        return (self._bits(x).to(torch.float64) * _SINGLE).to(x.dtype)

    def normal(self, x: Tensor) -> Tensor:
        """Return standard normal numbers of the shape and type of `x`, by inversion."""
        middle = (self._bits(x).to(torch.float64) + 0.5) * _SINGLE
        return torch.special.ndtri(middle).to(x.dtype)

    def fold_in(
        self, *, purpose: str | None = None, restart: int | Tensor | None = None, step: int | Tensor | None = None
    ) -> KeyedRNG:
        """Return the generator of the same images for another purpose, restart or step."""
        return replace(
            self,
            purpose=self.purpose if purpose is None else purpose,
            restart=self.restart if restart is None else restart,
            step=self.step if step is None else step,
        )

    def select(self, rows: Tensor) -> KeyedRNG:
        """Return the generator of some of the images, by row number or mask."""
        rows = rows.to(self.index.device)
        restart, step = (v[rows] if isinstance(v, Tensor) else v for v in (self.restart, self.step))
        return replace(self, index=self.index[rows], restart=restart, step=step)

    def integer(self) -> int:
        """Return one integer in [0, 2**63) for the whole batch, independent of its images."""
        if isinstance(self.restart, Tensor) or isinstance(self.step, Tensor):
            raise ValueError("An integer for the batch needs a single restart and a single step.")
        return self._key(self.restart, self.step) >> 1

    def _key(self, restart: int, step: int) -> int:
        key = f"{self.seed}|{self.purpose}|{restart}|{step}".encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

    def _keys(self) -> Tensor:
        """Return the key of each image as a signed integer, `(B,)` or one for all."""
        if not (isinstance(self.restart, Tensor) or isinstance(self.step, Tensor)):
            return torch.tensor(_signed(self._key(self.restart, self.step)))
        pairs = list(zip(_each(self.restart, self.index), _each(self.step, self.index), strict=True))
        keys = {pair: _signed(self._key(*pair)) for pair in set(pairs)}
        return torch.tensor([keys[pair] for pair in pairs], dtype=torch.int64)

    def _bits(self, x: Tensor) -> Tensor:
        """Return 24 random bits for each element of `x`, int64."""
        index = self.index.to(x.device, torch.int64)
        image = _mix(index * _WEYL + self._keys().to(x.device))
        place = torch.arange(1, x.shape[1:].numel() + 1, device=x.device, dtype=torch.int64)
        return (_shift(_mix(image[:, None] + place * _WEYL), 40)).view(x.shape)


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Seed torch's own generators inside the context, for randomized models, and restore them."""
    started = torch.cuda.is_available() and torch.cuda.is_initialized()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if started else []):
        torch.manual_seed(seed)
        yield


def as_rng(rng: KeyedRNG | None, x: Tensor, purpose: str = "") -> KeyedRNG:
    """Return `rng`, or for None the generator of images numbered 0 … B − 1 with seed 0."""
    return KeyedRNG(torch.arange(len(x)), 0, purpose) if rng is None else rng


def _each(value: int | Tensor, index: Tensor) -> list[int]:
    return value.tolist() if isinstance(value, Tensor) else [value] * len(index)


def _signed(key: int) -> int:
    return key - 2**64 if key >= 2**63 else key


def _shift(bits: Tensor, by: int) -> Tensor:
    # Filled with zeros: the shift of torch keeps the sign.
    return (bits >> by) & (2 ** (64 - by) - 1)


def _mix(bits: Tensor) -> Tensor:
    """Apply the finalizer of SplitMix64: every input bit affects every output bit."""
    bits = (bits ^ _shift(bits, 30)) * _MIX_1
    bits = (bits ^ _shift(bits, 27)) * _MIX_2
    return bits ^ _shift(bits, 31)


def initialized(build: Callable[[], Built], seed: int) -> Built:
    """Build a network with weights drawn from the seed, and restore torch's generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KeyedRNG(torch.empty(0), seed, "initialise").integer() % 2**31)
        return build()
