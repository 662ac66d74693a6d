"""The Square attack: random search with squares, which asks for logits alone and so sees through masked gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import State, run_attack
from forefend.checks import InputError
from forefend.losses import Loss, margin
from forefend.runtime.labels import label_of
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image, radius_per_image
from forefend.threat_models.lp import L2, Linf

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 after which a square's area halves


@dataclass(frozen=True, repr=False)
class Square:
    """Paint a random square of each image, and keep it where the loss rises.

    Args:
        threat: where the attack must stay, `Linf` or `L2`.
        steps: number of queries, the start's included.
        loss: what to raise, `(prediction, target) -> (B,)`; it is never differentiated.
        area: the first squares' share of the image, in (0, 1].
        horizon: how many queries the ten sizes of squares are spread over. AutoAttack keeps 10,000 for its 5,000
            queries; set it to `steps` to come to the smallest squares.

    Raises:
        InputError: no query, another threat model, or an area or horizon out of range.

    Source: Andriushchenko et al., 1912.00049. Unlike the authors' PyTorch code, each image gets a square of its own,
    as in the paper and their NumPy code, and squares may touch the lower and right border, as in the paper.
    """

    threat: ThreatModel
    steps: int
    loss: Loss = margin
    area: float = 0.8
    horizon: int = 10_000
    gradients = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.horizon < 1:
            raise InputError(f"Square with {self.steps} steps and horizon {self.horizon}: both must be at least 1.")
        if not 0 < self.area <= 1:
            raise InputError(f"Square's first area is {self.area:g}, expected a share of the image in (0, 1].")
        if type(self.threat) not in _PAINTERS:
            raise InputError(f"Square does not know how to paint inside {self.threat}: give it Linf or L2.")

    def __str__(self) -> str:
        return f"Square-{self.steps}({self.threat}, loss={label_of(self.loss)}, area={self.area:g}, horizon={self.horizon})"

    @property
    def forwards(self) -> int:
        """Forward passes an image costs."""
        return self.steps

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images, those of highest loss.

        Args:
            f: what the attacker sees, image batch to prediction; needs no gradient; modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where the squares come from.
        """
        return run_attack(self, f, x, target, rng)

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Stripes (l∞) or tiles (l2), not asked about yet."""
        start, _ = _PAINTERS[type(self.threat)]
        return {
            "x_best": start(self.threat, x, rng),
            "best": x.new_full((len(x),), -torch.inf),
            "taken": torch.zeros(len(x), dtype=torch.int64, device=x.device),
        }

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """One query: the start itself, later a new square on the best image so far."""
        x_best, best, taken = state["x_best"], state["best"], state["taken"]
        _, paint = _PAINTERS[type(self.threat)]
        with torch.no_grad():
            painted = paint(self.threat, x_best, x, self._sides(taken - 1, x), rng)
            x_try = torch.where(broadcast_per_image(taken > 0), painted, x_best)
            loss = self.loss(f(x_try), target)
            better = loss > best
            return {
                "x_best": torch.where(broadcast_per_image(better), x_try, x_best),
                "best": torch.where(better, loss, best),
                "taken": taken + 1,
            }

    def finish(self, state: State) -> Tensor:
        """The image of highest loss."""
        return state["x_best"]

    def _sides(self, squares: Tensor, x: Tensor) -> Tensor:
        """The side of each image's next square in pixels, `(B,)`, after so many squares."""
        height, width = x.shape[2:]
        marks = torch.tensor(_HALVINGS, device=x.device)
        halvings = (squares[:, None] * 10_000 // self.horizon > marks).sum(1)
        areas = self.area * height * width * 0.5 ** halvings.to(torch.float64)
        return areas.sqrt().round().to(torch.int64).clamp(1, min(height, width))


def _stripes(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Every column of every channel at one of the two ends of the l∞ ball."""
    _, channels, _, width = x.shape
    signs = _signs(_few(rng, x, channels * width)).view(-1, channels, 1, width)
    return threat.project(x + broadcast_per_image(radius_per_image(threat, x)) * signs.to(x.dtype), x)


def _square(threat: ThreatModel, x_best: Tensor, x: Tensor, side: Tensor, rng: KeyedRNG) -> Tensor:
    """A square with each channel at one of the two ends of the l∞ ball."""
    u = _few(rng, x, 2 + x.shape[1])
    rows, columns = _placed(u[:, :2], side, x)
    end = threat.project(
        x + broadcast_per_image(radius_per_image(threat, x)) * _signs(u[:, 2:])[:, :, None, None].to(x.dtype), x
    )
    return torch.where(_inside(rows, columns, side), end, x_best)


def _tiles(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """A chessboard of about 5 × 5 bumps of random signs and directions, stretched to the l2 radius."""
    count, channels, height, width = x.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    u = _few(rng, x, down * across * (1 + channels)).view(count, 1 + channels, down, across)
    place = torch.arange(side, device=x.device)[None]
    bump = _bump(place, place, torch.tensor([side], device=x.device), torch.tensor([False], device=x.device))[0, 0]
    turned = (u[:, :1] < 0.5)[..., None, None]
    tiles = _signs(u[:, 1:])[..., None, None] * torch.where(turned, bump.T, bump)
    board = tiles.transpose(3, 4).reshape(count, channels, down * side, across * side)
    delta = torch.zeros_like(x)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta[:, :, top : top + down * side, left : left + across * side] = board.to(x.dtype)
    return _stretched(threat, x, delta)


def _moved_mass(threat: ThreatModel, x_best: Tensor, x: Tensor, side: Tensor, rng: KeyedRNG) -> Tensor:
    """One window's perturbation is taken away and given, as a bump, to another. Source: the paper's Algorithm 3."""
    side = torch.minimum(side.clamp_min(3) // 2 * 2 + 1, torch.full_like(side, min(x.shape[2:])))
    u = _few(rng, x, 5 + x.shape[1])
    rows, columns = _placed(u[:, :2], side, x)
    here, there = _inside(rows, columns, side), _inside(*_placed(u[:, 2:4], side, x), side)
    delta = x_best - x
    energy = delta.square()
    signs = _signs(u[:, 5:])[:, :, None, None].to(x.dtype)
    kept = delta * here / (energy * here).sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    shape = _bump(rows, columns, side, u[:, 4] < 0.5).to(x.dtype) * signs + kept
    unused = (
        broadcast_per_image(radius_per_image(threat, x)).square() - energy.sum((1, 2, 3), keepdim=True)
    ).clamp_min(0)
    length = (unused / x.shape[1] + (energy * (here | there)).sum((2, 3), keepdim=True)).sqrt()
    given = shape * (length / _lengths(shape).clamp_min(1e-12))
    return _stretched(threat, x, torch.where(here, given, delta.masked_fill(there, 0)))


# For each threat model: where the attack starts, and what it tries next.
_PAINTERS: dict[type[ThreatModel], tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    Linf: (_stripes, _square),
    L2: (_tiles, _moved_mass),
}


def _few(rng: KeyedRNG, x: Tensor, count: int) -> Tensor:
    """A few uniform numbers for each image, `(B, count)`: hashing a number for every pixel would cost as a layer."""
    return rng.uniform(torch.empty(len(x), count, device=x.device))


def _signs(u: Tensor) -> Tensor:
    return 1 - 2 * (u < 0.5).to(u.dtype)


def _placed(u: Tensor, side: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column numbers counted from the corner of a randomly placed square, `(B, H)` and `(B, W)`."""
    corners = (u * (torch.tensor(x.shape[2:], device=x.device) - side[:, None] + 1)).to(torch.int64)
    rows, columns = (torch.arange(n, device=x.device) - corners[:, i, None] for i, n in enumerate(x.shape[2:]))
    return rows, columns


def _inside(rows: Tensor, columns: Tensor, side: Tensor) -> Tensor:
    """Which pixels are in the square, `(B, 1, H, W)` bool."""
    within = [(place >= 0) & (place < side[:, None]) for place in (rows, columns)]
    return within[0][:, None, :, None] & within[1][:, None, None, :]


def _bump(rows: Tensor, columns: Tensor, side: Tensor, turned: Tensor) -> Tensor:
    """A rise beside a dip in a square, of length one, zero outside: `(B, 1, H, W)` float32.

    Each half falls away from its middle in rings, ring d by the sum of 1 / k² over k > d; turned, the dip is to the
    right and not below. Source: the paper's Eq. 2, summed in closed form.
    """
    side, turned = side[:, None], turned[:, None]
    half = side // 2
    # How far from the middle of a half, which lies above the other one, or if turned to its left.
    down = torch.where(turned, (rows - half).abs(), _from_middles(rows, side))
    right = torch.where(turned, _from_middles(columns, side), (columns - half).abs())
    ring = torch.maximum(down[:, :, None], right[:, None])
    falls = torch.arange(1, max(rows.shape[1], columns.shape[1]) + 2, device=side.device).square().reciprocal()
    sums = torch.cat((falls.new_zeros(1), falls.cumsum(0)))
    height = ((sums[half + 1])[..., None] - sums[ring.clamp_max(len(falls))])[:, None] * _inside(
        rows, columns, side[:, 0]
    )
    first = torch.where(turned[..., None], (columns < half)[:, None], (rows < half)[:, :, None])[:, None]
    rise = height * first
    dip = height - rise
    return (rise / _lengths(rise).clamp_min(1e-12) - dip / _lengths(dip).clamp_min(1e-12)) / math.sqrt(2)


def _from_middles(places: Tensor, side: Tensor) -> Tensor:
    """How far each place is from the middle of the half of a square in which it lies."""
    half = side // 2
    return (places - torch.where(places < half, half // 2, half + (side - half) // 2)).abs()


def _stretched(threat: ThreatModel, x: Tensor, delta: Tensor) -> Tensor:
    """The perturbation at the full l2 radius, then clipped to the box."""
    length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return (x + delta * broadcast_per_image(radius_per_image(threat, x) / length)).clamp(0, 1)


def _lengths(delta: Tensor) -> Tensor:
    """Euclidean length of each channel, shaped to broadcast over it."""
    return delta.square().sum((2, 3), keepdim=True).sqrt()
