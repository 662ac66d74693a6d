"""The Wasserstein threat model: an attacker moves mass between pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from forefend.checks import InputError, import_extra
from forefend.runtime.formatting import format_radius
from forefend.threat_models.base import ThreatModel, parse_radius
from forefend.threat_models.transport import (
    apply_coupling,
    offset_lengths,
    project_to_box,
    random_moves,
    scale_to_budget,
    total_mass,
    valid_offsets,
)

if TYPE_CHECKING:
    from forefend.runtime.rng import KeyedRNG

# A larger share of unmatched mass than this is not due to float32's relative error of 6e-8.
_UNMATCHED = 1e-6


@dataclass(frozen=True, init=False, repr=False)
class Wasserstein(ThreatModel):
    """Images in [0, 1] reachable by moving mass between pixels of a channel: `Wasserstein(0.03)`.

    The mass of a pixel is its value. Moving mass costs mass times Euclidean distance in pixels,
    inside the `window` × `window` square around its source. The total cost is at most `radius`
    times the mass of the image.

    `distance` is exact: it solves a linear program, about a second for each image. `excess` and
    `allows` check range and mass of every image and a lower bound of its cost, since mass moves by
    at least one pixel. They check the exact cost of the first `exact` images of a batch. The exact
    cost needs SciPy.

    Args:
        radius: in pixels, a number, text, or inside an attack `(B,)`.
        window: odd side of the square, in pixels.
        exact: the number of images of each batch whose exact cost is checked; at least 0.

    Raises:
        InputError: a negative radius, an even window or one below 3, or a negative `exact`.

    Source: Wong et al., 1902.07906, with a ball per unit of mass and local moves.
    """

    radius: float
    window: int
    exact: int

    def __init__(self, radius: float | str | Tensor, window: int = 5, exact: int = 2) -> None:
        if window < 3 or window % 2 == 0:
            raise InputError(f"The window is {window} pixels, expected an odd number of at least 3, such as 5.")
        if exact < 0:
            raise InputError(f"The number of images with exact cost is {exact}, expected at least 0.")
        object.__setattr__(self, "radius", parse_radius(radius))
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "exact", exact)

    def __str__(self) -> str:
        return f"Wasserstein:{format_radius(self.radius)}(window={self.window}, exact={self.exact})"

    def budget(self, x: Tensor) -> Tensor:
        """Return the allowed cost, radius times the mass of each image, `(B,)`, typed like `x`."""
        return torch.as_tensor(self.radius, dtype=x.dtype, device=x.device) * total_mass(x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clamp to [0, 1], restore the mass, and interpolate towards x until the cost is allowed.

        This corrects the rounding of an attack. It is slow, and the result is not the nearest
        allowed image. Allowed images are returned unchanged; attacks project couplings instead.

        Raises:
            InputError: an image is not reachable by moves inside the window.
        """
        if bool((outside := ~self.allows(x_adv, x)).any()):
            fixed, clean = _repair_mass(x_adv[outside], x[outside]), x[outside].double()
            distance = self.distance(fixed, clean)
            if not bool(distance.isfinite().all()):
                raise InputError(
                    f"An image cannot be reached by moves inside {self.window} × {self.window} pixels and cannot be "
                    "projected: attack with ProjectedWasserstein or FrankWolfeWasserstein."
                )
            radius = torch.as_tensor(self.radius, dtype=torch.float64, device=x.device).expand(len(x))[outside]
            share = (radius / distance.clamp_min(1e-300)).clamp_max(1).view(-1, 1, 1, 1)
            x_adv = x_adv.index_put((outside,), (clean + share * (fixed - clean)).to(x_adv.dtype))
        return x_adv

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the least cost over the mass of the image, in pixels; infinite if not reachable.

        Raises:
            InputError: SciPy is not installed.
        """
        costs = [_exact_cost(*pair, self.window) for pair in zip(x_adv, x, strict=True)]
        return _per_mass(torch.tensor(costs, dtype=torch.float64, device=x.device), x)

    def noise(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Move the same share of the mass of every pixel to a random pixel of its window."""
        x64 = x.double()
        moved = scale_to_budget(random_moves(x64, self.window, rng), x64, self.budget(x64) * (1 - _UNMATCHED))
        return apply_coupling(project_to_box(moved, x64), x64).clamp(0, 1).to(x.dtype)

    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Raise an InputError: the moves of mass depend on the image, not only on the gradient."""
        raise InputError(
            "A Wasserstein step moves couplings, not pixels: attack with ProjectedWasserstein or "
            "FrankWolfeWasserstein instead of PGD."
        )

    def excess(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the largest excess of pixel range, of relative mass and of cost."""
        y, x = x_adv.double(), x.double()
        box = torch.maximum(-y, y - 1).flatten(1).amax(1)
        made = (y.sum((2, 3)) - x.sum((2, 3))).abs()
        off = (made / x.sum((2, 3))).nan_to_num(nan=0.0, posinf=1.0).where(~made.isnan(), made).amax(1)
        cost = _per_mass((y - x).abs().flatten(1).sum(1) / 2, x)
        some = slice(0, self.exact)
        cost[some] = torch.maximum(cost[some], self.distance(y[some], x[some]))
        radius = torch.as_tensor(self.radius, dtype=torch.float64, device=x.device)
        return torch.maximum(torch.maximum(box, off), cost - radius)


def _per_mass(cost: Tensor, x: Tensor) -> Tensor:
    """Return cost divided by mass; 0 for a black image that is unchanged."""
    return torch.where(cost == 0, 0.0, cost / total_mass(x.double()))


def _repair_mass(x_adv: Tensor, x: Tensor) -> Tensor:
    """Return the image in the box with the mass of `x`: scale the pixels or their complement."""
    y = x_adv.double().clamp(0, 1)
    has, wants = y.sum((2, 3), keepdim=True), x.double().sum((2, 3), keepdim=True)
    room = x[0, 0].numel()
    lower = y * (wants / has.clamp_min(1e-300))
    higher = 1 - (1 - y) * ((room - wants) / (room - has).clamp_min(1e-300))
    return torch.where(has > wants, lower, higher).clamp(0, 1)


def _exact_cost(x_adv: Tensor, x: Tensor, window: int) -> float:
    """Return the least cost of moving one image, `(C, H, W)`, to another, summed over channels."""
    if not bool(x_adv.isfinite().all()):
        return float("nan")
    return sum(_channel_cost(a[None, None], b[None, None], window) for a, b in zip(x_adv, x, strict=True))


def _channel_cost(x_adv: Tensor, x: Tensor, window: int) -> float:
    """Solve the linear program of one channel; unmatched mass means an infinite result."""
    optimize = import_extra("scipy.optimize", "An exact transport cost", "data")
    sparse = import_extra("scipy.sparse", "An exact transport cost", "data")
    x, x_adv = x.double().cpu(), x_adv.double().clamp_min(0).cpu()
    offset, source, target = _arcs(x_adv, x, window)
    pixels, arcs = x.numel(), len(source)
    places = torch.cat([source, target + pixels, torch.arange(2 * pixels)])
    variables = torch.cat([torch.arange(arcs).repeat(2), torch.arange(arcs, arcs + 2 * pixels)])
    conserved = sparse.csc_matrix((torch.ones(len(places)).numpy(), (places.numpy(), variables.numpy())))
    length = offset_lengths(window, x).flatten()
    # Unmatched mass costs more than any path, so that it remains only where no path exists.
    cost = torch.cat([length[offset], (pixels * length.max()).repeat(2 * pixels)])
    holds = torch.cat([x.flatten(), x_adv.flatten()])
    found = optimize.linprog(cost.numpy(), A_eq=conserved, b_eq=holds.numpy(), method="highs")
    if found.status != 0:
        raise RuntimeError(f"The linear program of the exact transport cost failed: {found.message}")
    flow = torch.from_numpy(found.x)
    if float(flow[arcs:].sum()) > _UNMATCHED * float(holds.sum()):
        return float("inf")
    return float(flow[:arcs] @ length[offset])


def _arcs(x_adv: Tensor, x: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return offset, source and target of every useful move."""
    side = torch.arange(window) - window // 2
    step = (side[:, None] * x.shape[3] + side[None, :]).flatten()
    offset, source = valid_offsets(x, window)[0, 0].nonzero(as_tuple=True)
    target = source + step[offset]
    useful = (x.flatten()[source] > 0) & (x_adv.flatten()[target] > 0)
    return offset[useful], source[useful], target[useful]
