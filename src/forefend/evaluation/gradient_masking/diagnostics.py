"""Measure signs of masked gradients without an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from forefend.attacks.base import input_gradient
from forefend.evaluation.access import Access
from forefend.evaluation.model_checks import depends_on_batch, gives_logits, has_gradient, is_random, repeats
from forefend.losses import Loss, ce, margin
from forefend.models.classifiers.black_box import black_box_in
from forefend.models.freezing import device_of, frozen
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.distributed import process_group
from forefend.runtime.rng import KeyedRNG, torch_seed
from forefend.threat_models.base import ThreatModel


def zero_gradients(f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, loss: Loss = ce) -> Tensor:
    """Return which images have an input gradient that is zero: `(B,)` bool.

    Args:
        f: images to logits.
        x: images, `(B, C, H, W)` in [0, 1].
        y: labels, `(B,)`.
        loss: per-image loss; the gradient of cross-entropy is also zero where logits saturate.

    Raises:
        InputError: a gradient is NaN or infinite.
    """
    return (input_gradient(f, x, y, loss).flatten(1) == 0).all(1)


def optimizes_inside(network: nn.Module, x: Tensor) -> bool:
    """Whether the forward pass computes gradients, as purifiers that optimize at test time do."""
    with _recorded_backward_passes() as passes, torch.no_grad():
        network(x)
    return bool(passes)


def fixed_randomness(f: Callable[[Tensor], Tensor], seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a function that draws the same random numbers at every call."""

    def same_draws(x: Tensor) -> Tensor:
        with torch_seed(seed):
            return f(x)

    return same_draws


def loss_along_gradient(
    f: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, threat: ThreatModel, rng: KeyedRNG, loss: Loss = ce
) -> dict[float, tuple[float, float]]:
    """Return for how many images a step along the gradient raises the loss, at three distances.

    Args:
        f: images to logits.
        x: images, `(B, C, H, W)` in [0, 1].
        y: labels, `(B,)`.
        threat: threat model; distances are shares of its radius, in its norm.
        rng: random generator of the random direction.
        loss: per-image loss.

    Returns:
        For each distance, the shares of images whose loss rises along the gradient, and along a
        random direction.
    """
    gradient = input_gradient(f, x, y, loss)
    random = rng.normal(x)
    found = {}
    with torch.no_grad():
        before = loss(f(x), y)
        for share in (0.02, 0.1, 0.5):
            sides = []
            for direction in (gradient, random):
                moved = threat.project(x + threat.step(direction, share * threat.radius), x)
                sides.append(float((loss(f(moved), y) > before).double().mean()))
            found[share] = (sides[0], sides[1])
    return found


def diagnose(
    network: nn.Module, batch: tuple[Tensor, Tensor, Tensor], threat: ThreatModel, samples: int
) -> tuple[dict[str, float], dict[float, tuple[float, float]]]:
    """Measure all signs of masked gradients on one batch.

    Args:
        network: images to logits.
        batch: images, `(B, C, H, W)` in [0, 1], labels and dataset index, `(B,)` each.
        threat: threat model of the loss landscape.
        samples: forward passes that are averaged before a random network is differentiated.

    Returns:
        The facts, as `Evidence` names them, and the landscape; empty if there is no gradient.
    """
    network = frozen(network)
    x, y, index = (t.to(device_of(network)) for t in batch)
    chunks = AdaptiveBatchSize(len(x))

    def each(measure: Callable[[nn.Module, Tensor], bool], x: Tensor) -> Iterator[bool]:
        return chunks.map(x, partial(measure, network))

    facts: Any = {
        "random": any(each(is_random, x)),
        "has_gradient": all(each(has_gradient, x[:2])),
        "logits": any(each(gives_logits, x)),
        "optimizes": any(each(optimizes_inside, x[:2])),
        "repeats": repeats(network, x[:16]),
        "mixes": depends_on_batch(network, x),
        "probed": len(x),
        "black_box": black_box_in(network) is not None,
    }
    # All processes must take the same branch, even if random outputs gave them other facts.
    facts = process_group().all_of(facts)
    if not facts["has_gradient"]:
        return facts, {}
    f = fixed_randomness(Access(eot_samples=samples)(network)) if facts["random"] else network

    def part(rows: Tensor) -> tuple[int, int, dict[float, tuple[float, float]]]:
        x_, y_, rng = x[rows], y[rows], KeyedRNG(index[rows], purpose="landscape")
        zero = int(zero_gradients(f, x_, y_).sum())
        return len(rows), zero, loss_along_gradient(f, x_, y_, threat, rng, loss=margin)

    parts = list(chunks.map(torch.arange(len(x), device=x.device), part))

    def share(distance: float, side: int) -> float:
        return sum(round(n * shares[distance][side]) for n, _, shares in parts) / len(x)

    landscape = {distance: (share(distance, 0), share(distance, 1)) for distance in parts[0][2]}
    return facts | {"zero": sum(zero for _, zero, _ in parts)}, landscape


@contextmanager
def _recorded_backward_passes() -> Iterator[list[str]]:
    """Record every backward pass inside the block, whichever function of torch starts it."""
    passes: list[str] = []
    engine: Any = torch.autograd.Variable._execution_engine

    class RecordingEngine:
        def run_backward(self, *args: Any, **options: Any) -> Any:
            passes.append("backward")
            return engine.run_backward(*args, **options)

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

    torch.autograd.Variable._execution_engine = RecordingEngine()  # type: ignore[assignment]
    try:
        yield passes
    finally:
        torch.autograd.Variable._execution_engine = engine
