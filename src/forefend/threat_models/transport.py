"""Transport couplings: the mass that moves from each pixel to each offset of a small window.

A coupling π is `(B, C, K, P)` with K = k² offsets of a k × k window and P = H · W pixels. `π[:, :,
o, p]` is the mass that moves from pixel p to its offset o. Offsets run row by row: offset K // 2
stays. A column sums to the pixel's mass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from forefend.runtime.rng import KeyedRNG

# After this many rounds of returning excess mass, a pixel above 1 returns all that it received.
_PARTIAL_ROUNDS = 100


def offset_lengths(window: int, like: Tensor) -> Tensor:
    """Return the Euclidean length of each offset in pixels, `(K, 1)`, typed like `like`."""
    step = torch.arange(window, dtype=like.dtype, device=like.device) - window // 2
    return torch.hypot(step[:, None], step[None, :]).view(-1, 1)


def gather_windows(image: Tensor, window: int) -> Tensor:
    """Return the value at each offset of each pixel, 0 beyond the border, `(B, C, K, P)`.

    This is the transpose of `apply_coupling`: it maps gradients of images to those of couplings.
    """
    patches = F.unfold(image, window, padding=window // 2)
    return patches.view(*image.shape[:2], window**2, -1)


def valid_offsets(x: Tensor, window: int) -> Tensor:
    """Return which offsets lie on the image, `(1, 1, K, P)` bool."""
    return gather_windows(torch.ones_like(x[:1, :1]), window) > 0


def apply_coupling(coupling: Tensor, x: Tensor) -> Tensor:
    """Return the image after the transport, of the shape of `x`; pixels may exceed 1."""
    window = round(coupling.shape[2] ** 0.5)
    return F.fold(coupling.flatten(1, 2), x.shape[2:], window, padding=window // 2)


def total_mass(x: Tensor) -> Tensor:
    """Return the sum of the pixels of each image over all channels, `(B,)`."""
    return x.flatten(1).sum(1)


def transport_cost(coupling: Tensor) -> Tensor:
    """Return the cost of each image, mass times distance in pixels, `(B,)`."""
    window = round(coupling.shape[2] ** 0.5)
    return (coupling.sum((1, 3)) * offset_lengths(window, coupling).T).sum(1)


def identity_coupling(x: Tensor, window: int) -> Tensor:
    """Return the coupling that moves nothing."""
    coupling = x.new_zeros(*x.shape[:2], window**2, x.shape[2] * x.shape[3])
    coupling[:, :, window**2 // 2] = x.flatten(2)
    return coupling


def random_moves(x: Tensor, window: int, rng: KeyedRNG) -> Tensor:
    """Return the coupling that moves all mass of each pixel to a random valid offset."""
    open_to = valid_offsets(x, window).expand(*x.shape[:2], -1, -1).to(x.dtype)
    chosen = (rng.uniform(open_to) + 1).mul(open_to).argmax(2, keepdim=True)
    return torch.zeros_like(open_to).scatter(2, chosen, x.flatten(2).unsqueeze(2))


def scale_to_budget(coupling: Tensor, x: Tensor, budget: Tensor) -> Tensor:
    """Scale all moves until the cost is at most `budget`, `(B,)`, and no pixel exceeds its mass.

    Mass that is not moved stays, so that the columns of the result sum to `x` exactly.
    """
    moves = _moves_only(coupling.clamp_min(0))
    tiny = torch.finfo(moves.dtype).tiny
    has = x.flatten(2).unsqueeze(2)
    moves = moves * (has / moves.sum(2, keepdim=True).clamp_min(tiny)).clamp_max(1)
    return _with_remainder(moves * (budget / transport_cost(moves).clamp_min(tiny)).clamp_max(1).view(-1, 1, 1, 1), x)


def project_to_box(coupling: Tensor, x: Tensor) -> Tensor:
    """Return mass to its sources until no pixel exceeds 1; this only lowers the cost."""
    window = round(coupling.shape[2] ** 0.5)
    moves = _moves_only(coupling)
    tiny, rounding = torch.finfo(moves.dtype).tiny, 4 * torch.finfo(moves.dtype).eps
    # A pixel that returns all mass receives none in later rounds, so that the loop ends.
    for round_ in range(_PARTIAL_ROUNDS + x[0, 0].numel()):
        arriving = apply_coupling(moves, x)
        over = apply_coupling(_with_remainder(moves, x), x) - 1
        if not bool((over > rounding).any()):
            break
        share = over / arriving.clamp_min(tiny) if round_ < _PARTIAL_ROUNDS else over > rounding
        moves = moves * (1 - gather_windows(share.to(moves.dtype).clamp(0, 1), window))
    return _with_remainder(moves, x)


def solve_for_budget(solve: Callable[[Tensor], Tensor], budget: Tensor, highest: Tensor, *, halvings: int) -> Tensor:
    """Return the coupling at the lowest multiplier whose cost is within the budget.

    The couplings just below and just above that multiplier are mixed so that the cost equals the
    budget. The mixture is the exact solution where `solve` is linear between the two multipliers,
    or where both couplings are optimal.

    Args:
        solve: multiplier of the cost for each image, `(B,)`, to coupling `(B, C, K, P)`; a higher
            one costs less.
        budget: allowed cost, `(B,)`.
        highest: a multiplier at which hardly any mass moves, `(B,)`.
        halvings: number of bisection steps.
    """
    low, high = torch.zeros_like(highest), highest
    free = solve(low)
    if bool((transport_cost(free) <= budget).all()):
        return free
    for _ in range(halvings):
        middle = (low + high) / 2
        affordable = transport_cost(solve(middle)) <= budget
        low, high = torch.where(affordable, low, middle), torch.where(affordable, middle, high)
    # Where the low multiplier is still 0, the unconstrained solution may be within the budget.
    below, above = solve(low), solve(high)
    most, least = transport_cost(below), transport_cost(above)
    part = (budget - least) / (most - least).clamp_min(torch.finfo(most.dtype).tiny)
    part = torch.where(most <= budget, 1, part.clamp(0, 1)).view(-1, 1, 1, 1)
    return part * below + (1 - part) * above


def _moves_only(coupling: Tensor) -> Tensor:
    moves = coupling.clone()
    moves[:, :, coupling.shape[2] // 2] = 0
    return moves


def _with_remainder(moves: Tensor, x: Tensor) -> Tensor:
    """Return the coupling of these moves: mass that is not moved stays."""
    coupling = moves.clone()
    coupling[:, :, moves.shape[2] // 2] = (x.flatten(2) - moves.sum(2)).clamp_min(0)
    return coupling
