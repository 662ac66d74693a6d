"""Couplings: how much of each pixel's mass moves where, inside a small window, channel by channel.

A coupling π is `(B, C, K, P)`: of pixel p's mass, `π[:, :, o, p]` goes to the pixel at offset o of a k × k window
around it, K = k², P = H · W; offsets run row by row, so that K // 2 is to stay. A pixel's column sums to its mass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from forefend.runtime.rng import KeyedRNG


# After this many rounds of sending back just what is too much, a pixel that is still too full sends back all.
_GENTLE_ROUNDS = 100


def offset_lengths(window: int, like: Tensor) -> Tensor:
    """The Euclidean length of each offset, in pixels: `(K, 1)`, of `like`'s type and device."""
    way = torch.arange(window, dtype=like.dtype, device=like.device) - window // 2
    return torch.hypot(way[:, None], way[None, :]).view(-1, 1)


def gather_windows(image: Tensor, window: int) -> Tensor:
    """What each pixel finds at each offset, zero beyond the border: `(B, C, H, W)` to `(B, C, K, P)`.

    It is the transpose of `transported`: a gradient of the image becomes one of the coupling.
    """
    patches = F.unfold(image, window, padding=window // 2)
    return patches.view(*image.shape[:2], window**2, -1)


def valid_offsets(x: Tensor, window: int) -> Tensor:
    """Which offsets stay on the image, `(1, 1, K, P)` bool."""
    return gather_windows(torch.ones_like(x[:1, :1]), window) > 0


def apply_coupling(coupling: Tensor, x: Tensor) -> Tensor:
    """The image after the move, shaped like `x`; a pixel may hold more than 1."""
    window = round(coupling.shape[2] ** 0.5)
    return F.fold(coupling.flatten(1, 2), x.shape[2:], window, padding=window // 2)


def total_mass(x: Tensor) -> Tensor:
    """The sum of each image's pixels over all channels, `(B,)`."""
    return x.flatten(1).sum(1)


def transport_cost(coupling: Tensor) -> Tensor:
    """Mass times distance of each image's moves, in pixels: `(B,)`."""
    window = round(coupling.shape[2] ** 0.5)
    return (coupling.sum((1, 3)) * offset_lengths(window, coupling).T).sum(1)


def identity_coupling(x: Tensor, window: int) -> Tensor:
    """The coupling that moves nothing."""
    coupling = x.new_zeros(*x.shape[:2], window**2, x.shape[2] * x.shape[3])
    coupling[:, :, window**2 // 2] = x.flatten(2)
    return coupling


def random_moves(x: Tensor, window: int, rng: KeyedRNG) -> Tensor:
    """Every pixel's mass sent whole to one random offset that stays on the image."""
    open_to = valid_offsets(x, window).expand(*x.shape[:2], -1, -1).to(x.dtype)
    chosen = (rng.uniform(open_to) + 1).mul(open_to).argmax(2, keepdim=True)
    return torch.zeros_like(open_to).scatter(2, chosen, x.flatten(2).unsqueeze(2))


def scale_to_budget(coupling: Tensor, x: Tensor, budget: Tensor) -> Tensor:
    """A share of every move such that the work is at most `budget`, `(B,)`, and no pixel sends more than it has.

    What is not moved stays, so that a coupling whose columns sum to x by rounding alone comes back exact.
    """
    moves = _moves_only(coupling.clamp_min(0))
    tiny = torch.finfo(moves.dtype).tiny
    has = x.flatten(2).unsqueeze(2)
    moves = moves * (has / moves.sum(2, keepdim=True).clamp_min(tiny)).clamp_max(1)
    return _with_remainder(moves * (budget / transport_cost(moves).clamp_min(tiny)).clamp_max(1).view(-1, 1, 1, 1), x)


def project_to_box(coupling: Tensor, x: Tensor) -> Tensor:
    """Send back what makes a pixel exceed 1, each source its share, until none does; every return lowers the work.

    Args:
        coupling: `(B, C, K, P)`, its columns sum to `x`.
        x: the clean images, `(B, C, H, W)` in [0, 1].
    """
    window = round(coupling.shape[2] ** 0.5)
    moves = _moves_only(coupling)
    tiny, rounding = torch.finfo(moves.dtype).tiny, 4 * torch.finfo(moves.dtype).eps
    # A pixel that sends everything back receives nothing ever after, so that the second kind of round ends as well.
    for turn in range(_GENTLE_ROUNDS + x[0, 0].numel()):
        arriving = apply_coupling(moves, x)
        over = apply_coupling(_with_remainder(moves, x), x) - 1
        if not bool((over > rounding).any()):
            break
        share = over / arriving.clamp_min(tiny) if turn < _GENTLE_ROUNDS else over > rounding
        moves = moves * (1 - gather_windows(share.to(moves.dtype).clamp(0, 1), window))
    return _with_remainder(moves, x)


def solve_for_budget(solve: Callable[[Tensor], Tensor], budget: Tensor, dearest: Tensor, *, halvings: int) -> Tensor:
    """The coupling at the lowest price of work at which `budget` suffices, found by bisection.

    At the end the couplings just below and just above that price are mixed so that the budget is spent exactly:
    where `solve` is linear between the two prices, or both are optimal, the mixture is the exact solution.

    Args:
        solve: the coupling at a price for each image, `(B,)` to `(B, C, K, P)`; a higher price buys less work.
        budget: work allowed, `(B,)`.
        dearest: a price at which hardly anything moves, `(B,)`.
        halvings: how often the interval of prices is halved.
    """
    low, high = torch.zeros_like(dearest), dearest
    free = solve(low)
    if bool((transport_cost(free) <= budget).all()):
        return free
    for _ in range(halvings):
        middle = (low + high) / 2
        affordable = transport_cost(solve(middle)) <= budget
        low, high = torch.where(affordable, low, middle), torch.where(affordable, middle, high)
    # An image whose low price is still zero may afford what it wants for nothing.
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
    """The coupling of these moves: what is not moved stays."""
    coupling = moves.clone()
    coupling[:, :, moves.shape[2] // 2] = (x.flatten(2) - moves.sum(2)).clamp_min(0)
    return coupling
