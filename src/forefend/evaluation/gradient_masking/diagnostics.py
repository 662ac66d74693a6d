"""Probes: facts about a network that show where gradients are masked, found without an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import input_gradient
from forefend.evaluation.model_checks import gives_logits, has_gradient, is_random
from forefend.evaluation.trial import Averaged
from forefend.losses import Loss, ce, margin
from forefend.models.freezing import device_of, frozen
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.distributed import process_group
from forefend.runtime.rng import KeyedRNG, torch_seed
from forefend.threat_models.base import ThreatModel


def zero_gradients(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, loss: Loss = ce) -> Tensor:
    """Whether an image's loss has no gradient at all, or one that is not a number: `(B,)` bool.

    Args:
        f: what an attacker differentiates.
        x: images, `(B, C, H, W)` in [0, 1].
        y: labels, `(B,)`.
        loss: what is differentiated; cross-entropy vanishes on saturated logits too.
    """
    gradient = input_gradient(f, x, y, loss).flatten(1)
    return (gradient == 0).all(1) | ~gradient.isfinite().all(1)


def optimizes_inside(network: nn.Module, x: Tensor) -> bool:
    """Whether the network takes a gradient of its own while it answers, as purifiers that optimize at test time do."""
    with _watched_engine() as taken, torch.no_grad():
        network(x)
    return bool(taken)


def still(f: Callable[[Tensor], Tensor], seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A pipeline that draws from torch's generators, made to draw the same numbers at every call.

    What one step changes is then the step's doing. The generators are left as they were.
    """

    def same_draws(x: Tensor) -> Tensor:
        with torch_seed(seed):
            return f(x)

    return same_draws


def uphill(
    f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, threat: ThreatModel, rng: KeyedRNG, loss: Loss = ce
) -> dict[float, tuple[float, float]]:
    """The loss landscape along the gradient: how many images' loss rises at some distances.

    Args:
        f: what an attacker differentiates.
        x: images, `(B, C, H, W)` in [0, 1].
        y: labels, `(B,)`.
        threat: in whose norm a step is taken, and whose radius the distances are shares of.
        rng: of the random direction.
        loss: whose landscape it is.

    Returns:
        For each distance, the share of images whose loss rises along the gradient, and along a random direction.
    """
    gradient = input_gradient(f, x, y, loss)
    random = rng.normal(x)
    found = {}
    with torch.no_grad():
        here = loss(f(x), y)
        for share in (0.02, 0.1, 0.5):
            sides = []
            for direction in (gradient, random):
                there = threat.project(x + threat.step(direction, share * threat.radius), x)
                sides.append(float((loss(f(there), y) > here).double().mean()))
            found[share] = (sides[0], sides[1])
    return found


def probe(
    network: nn.Module, batch: tuple[Tensor, Tensor, Tensor], threat: ThreatModel, samples: int
) -> tuple[dict[str, float], dict[float, tuple[float, float]]]:
    """All of it on one batch, as many images at once as there is room for.

    Args:
        network: images to logits.
        batch: images, `(B, C, H, W)` in [0, 1], labels and dataset index, `(B,)` each.
        threat: of the landscape.
        samples: forward passes that are averaged before a random network is differentiated.

    Returns:
        The facts, as `Evidence` names them, and the landscape; empty where nothing can be differentiated.
    """
    network = frozen(network)
    x, y, index = (t.to(device_of(network)) for t in batch)
    room = AdaptiveBatchSize(len(x))

    def answers(look: Callable[[nn.Module, Tensor], bool], x: Tensor) -> Iterator[bool]:
        return room.map(x, partial(look, network))

    facts: Any = {
        "random": any(answers(is_random, x)),
        "flows": all(answers(has_gradient, x[:2])),
        "logits": any(answers(gives_logits, x)),
        "optimizes": any(answers(optimizes_inside, x[:2])),
        "probed": len(x),
    }
    # Several processes must go the same way, and each may have found otherwise of what answers at random.
    facts = process_group().all_of(facts)
    if not facts["flows"]:
        return facts, {}
    seen = still(Averaged(samples)(network)) if facts["random"] else network
    zero, landscape = _gradients(seen, (x, y, index), threat, room)
    return facts | {"zero": zero}, landscape


def _gradients(
    f: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor, Tensor], threat: ThreatModel, room: AdaptiveBatchSize
) -> tuple[int, dict[float, tuple[float, float]]]:
    """How many images have no gradient, and the landscape of the margin."""
    x, y, index = batch

    def part(rows: Tensor) -> tuple[int, int, dict[float, tuple[float, float]]]:
        x_, y_, rng = x[rows], y[rows], KeyedRNG(index[rows], purpose="landscape")
        zero = int(zero_gradients(f, x_, y_).sum())
        return len(rows), zero, uphill(f, x_, y_, threat, rng, loss=margin)

    found = list(room.map(torch.arange(len(x), device=x.device), part))

    def share(distance: float, side: int) -> float:
        return sum(round(n * rises[distance][side]) for n, _, rises in found) / len(x)

    return sum(zero for _, zero, _ in found), {d: (share(d, 0), share(d, 1)) for d in found[0][2]}


@contextmanager
def _watched_engine() -> Iterator[list[str]]:
    """Note each backward pass while the block runs.

    All of torch's ways to a gradient end in its engine; a function that was imported before keeps none of them hidden.
    """
    taken: list[str] = []
    engine: Any = torch.autograd.Variable._execution_engine

    class Watched:
        def run_backward(self, *args: Any, **options: Any) -> Any:
            taken.append("backward")
            return engine.run_backward(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

    torch.autograd.Variable._execution_engine = Watched()  # type: ignore[assignment]
    try:
        yield taken
    finally:
        torch.autograd.Variable._execution_engine = engine
