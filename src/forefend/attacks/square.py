"""The Square attack: random search that needs no gradients, so masked gradients cannot mislead it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import NO_EVIDENCE, Iterative, State, ThreatField
from forefend.checks import InputError, check_finite
from forefend.losses import Loss, margin
from forefend.runtime.labels import label_of
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image, radius_per_image
from forefend.threat_models.lp import L2, Linf

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries of 10,000 after which the area halves


@dataclass(frozen=True, repr=False)
class Square(Iterative):
    """Replace a random square of each image, and keep the change where the loss rises.

    Args:
        threat: `Linf` or `L2` threat model, by name or as an object.
        steps: number of queries, including the one at the start.
        loss: loss to maximize, `(prediction, target) -> (B,)`; it is not differentiated.
        area: share of the image that the first squares cover, in (0, 1].
        horizon: number of queries over which the squares shrink. AutoAttack uses 10,000 with 5,000 queries; set it
            to `steps` to reach the smallest squares.

    Raises:
        InputError: no query, another threat model, or an area or horizon out of range.

    Source: Andriushchenko et al., 1912.00049. Unlike the authors' PyTorch code, each image gets its own square, and
    squares may touch the lower and right border, as in the paper.

    Example:
        >>> import torch
        >>> from forefend.attacks import Square
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
        >>> attack = Square("Linf:0.1", steps=50)
        >>> x_adv = attack(model, x, y)
        >>> bool(attack.threat.allows(x_adv, x).all())
        True
    """

    threat: ThreatField[Linf | L2] = ThreatField(Linf, L2)
    steps: int = 5000
    loss: Loss = margin
    area: float = 0.8
    horizon: int = 10_000
    gradients = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.horizon < 1:
            raise InputError(f"Square has {self.steps} steps and horizon {self.horizon}: give at least 1 of each.")
        if not 0 < self.area <= 1:
            raise InputError(f"The first area of Square is {self.area:g}: give a share of the image in (0, 1].")

    def __str__(self) -> str:
        settings = f"loss={label_of(self.loss)}, area={self.area:g}, horizon={self.horizon}"
        return f"Square-{self.steps}({self.threat}, {settings})"

    @property
    def forwards(self) -> int:
        """Number of forward passes for an image."""
        return self.steps

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the start."""
        start, _ = _PROPOSALS[type(self.threat)]
        return {
            "x_best": start(self.threat, x, rng),
            "best": x.new_full((len(x),), -torch.inf),
            "taken": torch.zeros(len(x), dtype=torch.int64, device=x.device),
        }

    def go_on(self, x: Tensor, x_adv: Tensor, rng: KeyedRNG) -> State:
        """Return the start at images of an earlier attack."""
        return self.begin(x, rng) | {"x_best": x_adv}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Take one query."""
        x_best, best, taken = state["x_best"], state["best"], state["taken"]
        _, propose = _PROPOSALS[type(self.threat)]
        with torch.no_grad():
            proposed = propose(self.threat, x_best, x, self._sides(taken - 1, x), rng)
            x_try = torch.where(broadcast_per_image(taken > 0), proposed, x_best)
            loss = self.loss(f(x_try), target)
            check_finite(loss, "The loss", NO_EVIDENCE, rng.index, self)
            better = loss > best
            return {
                "x_best": torch.where(broadcast_per_image(better), x_try, x_best),
                "best": torch.where(better, loss, best),
                "taken": taken + 1,
            }

    def finish(self, state: State) -> Tensor:
        """Return the image of highest loss."""
        return state["x_best"]

    def _sides(self, squares: Tensor, x: Tensor) -> Tensor:
        """Return the side of each image's next square in pixels, `(B,)`, after `squares` squares."""
        height, width = x.shape[2:]
        marks = torch.tensor(_HALVINGS, device=x.device)
        halvings = (squares[:, None] * 10_000 // self.horizon > marks).sum(1)
        areas = self.area * height * width * 0.5 ** halvings.to(torch.float64)
        return areas.sqrt().round().to(torch.int64).clamp(1, min(height, width))


def _stripes(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at x ± radius, one sign for each column of each channel."""
    _, channels, _, width = x.shape
    signs = _signs(_uniform(rng, x, channels * width)).view(-1, channels, 1, width)
    return threat.project(x + broadcast_per_image(radius_per_image(threat, x)) * signs.to(x.dtype), x)


def _square(threat: ThreatModel, x_best: Tensor, x: Tensor, side: Tensor, rng: KeyedRNG) -> Tensor:
    """Set a random square of each channel to x ± radius."""
    u = _uniform(rng, x, 2 + x.shape[1])
    rows, columns = _offsets(u[:, :2], side, x)
    end = threat.project(
        x + broadcast_per_image(radius_per_image(threat, x)) * _signs(u[:, 2:])[:, :, None, None].to(x.dtype), x
    )
    return torch.where(_inside(rows, columns, side), end, x_best)


def _tiles(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at a grid of about 5 × 5 bumps of random signs and directions, scaled to the l2 radius."""
    count, channels, height, width = x.shape
    side = max(min(height, width) // 5, 1)
    down, across = height // side, width // side
    u = _uniform(rng, x, down * across * (1 + channels)).view(count, 1 + channels, down, across)
    place = torch.arange(side, device=x.device)[None]
    bump = _bump(place, place, torch.tensor([side], device=x.device), torch.tensor([False], device=x.device))[0, 0]
    turned = (u[:, :1] < 0.5)[..., None, None]
    tiles = _signs(u[:, 1:])[..., None, None] * torch.where(turned, bump.T, bump)
    board = tiles.transpose(3, 4).reshape(count, channels, down * side, across * side)
    delta = torch.zeros_like(x)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    delta[:, :, top : top + down * side, left : left + across * side] = board.to(x.dtype)
    return _at_radius(threat, x, delta)


def _moved_mass(threat: ThreatModel, x_best: Tensor, x: Tensor, side: Tensor, rng: KeyedRNG) -> Tensor:
    """Move the perturbation of one window to another, as a bump. Source: the paper's Algorithm 3."""
    side = torch.minimum(side.clamp_min(3) // 2 * 2 + 1, torch.full_like(side, min(x.shape[2:])))
    u = _uniform(rng, x, 5 + x.shape[1])
    rows, columns = _offsets(u[:, :2], side, x)
    here, there = _inside(rows, columns, side), _inside(*_offsets(u[:, 2:4], side, x), side)
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
    return _at_radius(threat, x, torch.where(here, given, delta.masked_fill(there, 0)))


# For each threat model: the start and the proposal.
_PROPOSALS: dict[type[ThreatModel], tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    Linf: (_stripes, _square),
    L2: (_tiles, _moved_mass),
}


def _uniform(rng: KeyedRNG, x: Tensor, count: int) -> Tensor:
    """Return `(B, count)` uniform numbers; one for every pixel would be as slow as a layer."""
    return rng.uniform(torch.empty(len(x), count, device=x.device))


def _signs(u: Tensor) -> Tensor:
    return 1 - 2 * (u < 0.5).to(u.dtype)


def _offsets(u: Tensor, side: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column offsets from the corner of a random square, `(B, H)` and `(B, W)`."""
    corners = (u * (torch.tensor(x.shape[2:], device=x.device) - side[:, None] + 1)).to(torch.int64)
    rows, columns = (torch.arange(n, device=x.device) - corners[:, i, None] for i, n in enumerate(x.shape[2:]))
    return rows, columns


def _inside(rows: Tensor, columns: Tensor, side: Tensor) -> Tensor:
    """Return whether each pixel is in the square, `(B, 1, H, W)` bool."""
    within = [(place >= 0) & (place < side[:, None]) for place in (rows, columns)]
    return within[0][:, None, :, None] & within[1][:, None, None, :]


def _bump(rows: Tensor, columns: Tensor, side: Tensor, turned: Tensor) -> Tensor:
    """Return a positive and a negative bump of total length one in a square, `(B, 1, H, W)` float32.

    The height of ring d around the middle of each half is the sum of 1 / k² over k > d. The negative half is to the
    right where `turned`, otherwise below. Source: the paper's Eq. 2, summed in closed form.
    """
    side, turned = side[:, None], turned[:, None]
    half = side // 2
    # Distance from the middle of each half.
    down = torch.where(turned, (rows - half).abs(), _distance_from_middle(rows, side))
    right = torch.where(turned, _distance_from_middle(columns, side), (columns - half).abs())
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


def _distance_from_middle(places: Tensor, side: Tensor) -> Tensor:
    """Return the distance of each place from the middle of its half of the square."""
    half = side // 2
    return (places - torch.where(places < half, half // 2, half + (side - half) // 2)).abs()


def _at_radius(threat: ThreatModel, x: Tensor, delta: Tensor) -> Tensor:
    """Return x plus the perturbation scaled to the full l2 radius, clipped to [0, 1]."""
    length = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return (x + delta * broadcast_per_image(radius_per_image(threat, x) / length)).clamp(0, 1)


def _lengths(delta: Tensor) -> Tensor:
    """Return the Euclidean length of each channel, `(B, C, 1, 1)`."""
    return delta.square().sum((2, 3), keepdim=True).sqrt()
