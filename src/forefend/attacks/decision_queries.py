"""The queries of attacks that see classes alone: counted for each image, and the nearest misclassified kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol, final

import torch
from torch import Tensor

from forefend.attacks.base import NO_EVIDENCE
from forefend.checks import check_finite
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image

_STARTS = 16  # images that are tried together as starting points
_BISECTIONS = 10  # queries between the image and its starting point
_LEAST = 32  # images in a call, whatever the size of the batch


class Asking(Protocol):
    """What the queries need of an attack."""

    @property
    def threat(self) -> ThreatModel:
        """The threat model, whose norm is measured."""

    @property
    def queries(self) -> int:
        """The most queries for each image."""


@final
class Queries:
    """The queries for a batch: which of some images are misclassified, and the nearest so far.

    Args:
        attack: whose number of queries is not exceeded for any image.
        f: images to logits.
        x: the clean images, `(B, C, H, W)`.
        y: their labels, `(B,)`.
        rng: their random numbers.
        inside: whether the search for an image ends with the first misclassified one inside the threat model.
    """

    def __init__(
        self, attack: Asking, f: Callable[[Tensor], Any], x: Tensor, y: Tensor, rng: KeyedRNG, inside: bool
    ) -> None:
        self.attack, self.f, self.x, self.y, self.rng, self.inside = attack, f, x, y, rng, inside
        self.x_adv = x.clone()
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        self.count = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.ended = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def __call__(self, rows: Tensor, images: Tensor) -> Tensor:
        """Return whether each image is misclassified, `(N,)` bool; False beyond the number of queries.

        Args:
            rows: number in the batch of the clean image that each belongs to, `(N,)`, ascending.
            images: the queried images, `(N, C, H, W)`.
        """
        earlier = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)  # of the same clean one
        allowed = (~self.ended[rows] & (self.count[rows] + earlier < self.attack.queries)).nonzero().flatten()
        wrong = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
        if len(allowed):
            wrong[allowed] = self._ask(rows[allowed], images[allowed])
        return wrong

    def _ask(self, rows: Tensor, images: Tensor) -> Tensor:
        parts = images.split(max(len(self.x), _LEAST))  # no more at once than the batch has
        logits = torch.cat([self.f(part) for part in parts])
        check_finite(logits, "The logits", NO_EVIDENCE, self.rng.index.to(rows.device)[rows], self.attack)
        wrong: Tensor = logits.argmax(1) != self.y[rows]
        distances = self.attack.threat.distance(images, self.x[rows]).masked_fill(~wrong, torch.inf)
        nearest = self.distance.scatter_reduce(0, rows, distances, "amin")
        better = (distances == nearest[rows]) & (distances < self.distance[rows])
        self.x_adv[rows[better]], self.distance = images[better], nearest
        self.count += torch.bincount(rows, minlength=len(self.x))
        self.ended |= (self.count >= self.attack.queries) | (self.distance == 0)
        if self.inside:
            self.ended |= self.attack.threat.allows(self.x_adv, self.x) & self.distance.isfinite()
        return wrong

    def open(self) -> Tensor:
        """Return the rows that have a misclassified image and queries left."""
        return (self.distance.isfinite() & ~self.ended).nonzero().flatten()

    def start(self) -> None:
        """Ask for likely images until each clean image has a misclassified one."""
        for step in itertools.count():
            rows = (self.distance.isinf() & ~self.ended).nonzero().flatten()
            if not len(rows):
                return
            images = _starts(self.x[rows], self.rng.select(rows.cpu()), step)
            self(rows.repeat_interleave(images.shape[1]), images.flatten(0, 1))

    def bisect(self) -> None:
        """Ask for images between each clean image and its misclassified one, to the boundary."""
        rows = self.open()
        x, start = self.x[rows], self.x_adv[rows]
        low, high = torch.zeros_like(x[:, :1, :1, :1]), torch.ones_like(x[:, :1, :1, :1])
        for _ in range(_BISECTIONS if len(rows) else 0):
            middle = (low + high) / 2
            wrong = broadcast_per_image(self(rows, torch.lerp(x, start, middle)))
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)


def _starts(x: Tensor, rng: KeyedRNG, step: int) -> Tensor:
    """Return images that are likely to be of another class than each clean one, `(B, N, C, H, W)`."""
    if not step:
        flat = [torch.full_like(x, value) for value in (0.0, 1.0, 0.5)]
        return torch.stack([1 - x, *flat, x.flip(3), x.flip(2)], 1)
    channels, height, width = x.shape[1:]
    grain = 2 ** ((step - 1) % 4)  # pixels of one random value
    cells = x.new_empty(len(x), _STARTS, channels, -(-height // grain), -(-width // grain))
    noise = rng.fold_in(purpose=f"{rng.purpose}|start {step}").uniform(cells)
    return noise.repeat_interleave(grain, 3).repeat_interleave(grain, 4)[..., :height, :width]


def seed_of(rng: KeyedRNG) -> int:
    """Return an integer that only the image and its key decide."""
    high, low = rng.uniform(torch.empty(1, 2, dtype=torch.float64))[0].mul(2**24).long().tolist()
    return int(high) * 2**24 + int(low)
