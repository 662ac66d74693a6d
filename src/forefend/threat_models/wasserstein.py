"""The Wasserstein threat model: mass may be moved about, but neither made nor lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.threat_models.base import ThreatModel, format_radius, parse_radius
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


# float32 rounds a pixel by 6e-8 of it at most; a share of the mass that stays unmatched beyond this is no rounding.
_UNMATCHED = 1e-6


@dataclass(frozen=True, init=False, repr=False)
class Wasserstein(ThreatModel):
    """Images in [0, 1] reachable by moving mass inside each channel: `Wasserstein(0.03)`.

    A pixel's value is its mass. A move costs mass times Euclidean distance in pixels, and goes to a pixel of the
    `window` × `window` square around its source. All moves of an image, over its channels, together cost at most
    `radius` times the image's mass: a radius of 0.03 moves the whole image by 0.03 pixels, or 3 % of it by one.

    What is judged: `distance` is exact, by a linear programme of a second or so for each image. `excess` and `allows`
    check box and mass of every image, and the cheap lower bound that all mass which is elsewhere moved by at least one
    pixel; the exact cost they check for the first `exact` images of a batch only. Needs SciPy where a cost is exact.

    Args:
        radius: in pixels, a number, text, or inside an attack `(B,)`.
        window: odd side of the square, in pixels.
        exact: of how many images of each batch the exact cost is checked; at least 0.

    Raises:
        InputError: a negative radius, an even window or one below 3, or a negative `exact`.

    Source: Wong et al., 1902.07906, whose ball is per unit of mass and whose moves are local, as here.
    """

    radius: float
    window: int
    exact: int

    def __init__(self, radius: float | str | Tensor, window: int = 5, exact: int = 2) -> None:
        if window < 3 or window % 2 == 0:
            raise InputError(f"A window of {window} pixels has no middle with a neighbor: give an odd side such as 5.")
        if exact < 0:
            raise InputError(f"The exact cost of {exact} images cannot be checked: give 0 or more.")
        object.__setattr__(self, "radius", parse_radius(radius))
        object.__setattr__(self, "window", window)
        object.__setattr__(self, "exact", exact)

    def __str__(self) -> str:
        return f"Wasserstein:{format_radius(self.radius)}(window={self.window}, exact={self.exact})"

    def budget(self, x: Tensor) -> Tensor:
        """The work allowed, radius times each image's mass: `(B,)`, mass times pixels, typed like `x`."""
        return torch.as_tensor(self.radius, dtype=x.dtype, device=x.device) * total_mass(x)

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Clamp to [0, 1], mend each channel's mass, and draw towards x until the exact cost is allowed.

        It mends what an attack overshot by rounding: slow, and near but not nearest. Allowed images come back as they
        are; attacks project couplings instead.

        Raises:
            InputError: no moves inside the window lead to an image.
        """
        if bool((outside := ~self.allows(x_adv, x)).any()):
            fixed, clean = _repair_mass(x_adv[outside], x[outside]), x[outside].double()
            distance = self.distance(fixed, clean)
            if not bool(distance.isfinite().all()):
                raise InputError(
                    f"An image cannot be reached by moves inside {self.window} × {self.window} pixels, so that there "
                    "is nothing to project: attack with ProjectedWasserstein or FrankWolfeWasserstein."
                )
            radius = torch.as_tensor(self.radius, dtype=torch.float64, device=x.device).expand(len(x))[outside]
            share = (radius / distance.clamp_min(1e-300)).clamp_max(1).view(-1, 1, 1, 1)
            x_adv = x_adv.index_put((outside,), (clean + share * (fixed - clean)).to(x_adv.dtype))
        return x_adv

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The exact least cost over the image's mass, in pixels; infinite where no moves inside the window lead there.

        Raises:
            InputError: SciPy is not installed.
        """
        costs = [_exact_cost(*pair, self.window) for pair in zip(x_adv, x, strict=True)]
        return _per_mass(torch.tensor(costs, dtype=torch.float64, device=x.device), x)

    def noise(self, x: Tensor, rng: KeyedRNG) -> Tensor:
        """Every pixel sends the same share of its mass to a random place of its window; the radius sets the share."""
        x64 = x.double()
        moved = scale_to_budget(random_moves(x64, self.window, rng), x64, self.budget(x64) * (1 - _UNMATCHED))
        return apply_coupling(project_to_box(moved, x64), x64).clamp(0, 1).to(x.dtype)

    def step(self, gradient: Tensor, size: float | Tensor) -> Tensor:
        """Refused: which way mass can go depends on the image, not on the gradient alone.

        Raises:
            InputError: always.
        """
        raise InputError(
            "A Wasserstein step is one of couplings, not of pixels: attack with ProjectedWasserstein or "
            "FrankWolfeWasserstein in the place of PGD."
        )

    def excess(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """By how much each image lies outside, the largest of: pixels, share of a channel's mass, cost in pixels."""
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
    """Cost over mass; a black image that stayed black did not move."""
    return torch.where(cost == 0, 0.0, cost / total_mass(x.double()))


def _repair_mass(x_adv: Tensor, x: Tensor) -> Tensor:
    """The image in the box, float64, each channel's mass made that of `x` by scaling pixels, or their rest to 1."""
    y = x_adv.double().clamp(0, 1)
    has, wants = y.sum((2, 3), keepdim=True), x.double().sum((2, 3), keepdim=True)
    room = x[0, 0].numel()
    lower = y * (wants / has.clamp_min(1e-300))
    higher = 1 - (1 - y) * ((room - wants) / (room - has).clamp_min(1e-300))
    return torch.where(has > wants, lower, higher).clamp(0, 1)


def _exact_cost(x_adv: Tensor, x: Tensor, window: int) -> float:
    """The least cost of moving one image, `(C, H, W)`, to another: its channels' sum."""
    if not bool(x_adv.isfinite().all()):
        return float("nan")
    return sum(_channel_cost(a[None, None], b[None, None], window) for a, b in zip(x_adv, x, strict=True))


def _channel_cost(x_adv: Tensor, x: Tensor, window: int) -> float:
    """The optimum of one channel's linear programme; what cannot be matched is paid for dearly, and means infinity."""
    optimize, sparse = _scipy()
    x, x_adv = x.double().cpu(), x_adv.double().clamp_min(0).cpu()
    offset, source, target = _arcs(x_adv, x, window)
    pixels, arcs = x.numel(), len(source)
    places = torch.cat([source, target + pixels, torch.arange(2 * pixels)])
    variables = torch.cat([torch.arange(arcs).repeat(2), torch.arange(arcs, arcs + 2 * pixels)])
    conserved = sparse.csc_matrix((torch.ones(len(places)).numpy(), (places.numpy(), variables.numpy())))
    length = offset_lengths(window, x).flatten()
    # No detour of moves is longer than this, so that nothing is left unmatched that could have been moved.
    cost = torch.cat([length[offset], (pixels * length.max()).repeat(2 * pixels)])
    holds = torch.cat([x.flatten(), x_adv.flatten()])
    found = optimize.linprog(cost.numpy(), A_eq=conserved, b_eq=holds.numpy(), method="highs")
    if found.status != 0:
        raise RuntimeError(f"The exact transport cost could not be found: {found.message}")
    flow = torch.from_numpy(found.x)
    if float(flow[arcs:].sum()) > _UNMATCHED * float(holds.sum()):
        return float("inf")
    return float(flow[:arcs] @ length[offset])


def _arcs(x_adv: Tensor, x: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Offset, source and target of every move from a pixel that has mass to one that ends with some."""
    number = torch.arange(x.numel())
    way = torch.arange(window) - window // 2
    step = (way[:, None] * x.shape[3] + way[None, :]).flatten()
    offset, source = valid_offsets(x, window)[0, 0].nonzero(as_tuple=True)
    target = source + step[offset]
    useful = (x.flatten()[number[source]] > 0) & (x_adv.flatten()[target] > 0)
    return offset[useful], source[useful], target[useful]


def _scipy() -> tuple[Any, Any]:
    try:
        from scipy import optimize, sparse
    except ImportError:
        raise InputError("Exact transport costs need SciPy: pip install 'forefend[data]'") from None
    return optimize, sparse
