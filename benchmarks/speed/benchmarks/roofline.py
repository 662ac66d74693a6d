"""Rate of a gradient, beside that of its convolutions alone and that of the fastest convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import MODELS
from benchmarks.speed.results import Figure, Measured, Outcome, Point, Setup, Work, figure
from benchmarks.speed.timing import device, timed
from forefend.attacks.base import input_gradient
from forefend.losses import ce
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.precision import PRECISIONS, supported_dtype
from forefend.runtime.profiling import count_compute

NAME = "roofline"
WHOLE, ALONE, BEST = "ours", "its convolutions alone", "a 3x3 convolution of 64 channels"
REPEATS = 4  # gradients in a round


def points(quick: bool) -> list[Point]:
    """Return the gradient of each model, its convolutions, and the fastest convolution, in bf16 and fp32."""
    models = ["random weights"] if quick else ["resnet20", "defended resnet20"]
    cases = [f"{model} in {precision}" for model in models for precision in PRECISIONS]
    return [Point(NAME, case, name) for case in cases for name in (WHOLE, ALONE, BEST)]


def whole(case: str) -> Work:
    """Set up the gradient of an optimized copy."""
    f, x, y = _set_up(case)

    def gradients() -> None:
        for _ in range(REPEATS):
            input_gradient(f, x, y, ce)

    return _measured(gradients)


def alone(case: str) -> Work:
    """Set up the convolutions of an optimized copy, forward and backward, on features of the same shapes."""
    f, x, _ = _set_up(case)
    calls = convolutions(f, x)

    def run() -> None:
        for _ in range(REPEATS):
            for call in calls:
                call()

    return _measured(run)


def best(case: str) -> Work:
    """Set up a convolution that is fast on most machines: 64 channels of 32 x 32, 64 images."""
    dtype, _ = supported_dtype(case.rpartition(" ")[2], device())
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(device(), dtype).requires_grad_(False)
    call = Call(layer.to(memory_format=torch.channels_last), (64, 64, 32, 32), dtype)  # type: ignore[call-overload]

    def run() -> None:
        for _ in range(REPEATS):
            call()

    return _measured(run)


@dataclass(frozen=True)
class Call:
    """One convolution, forward and backward to its input.

    Args:
        layer: the convolution with frozen weights.
        shape: of its input.
        dtype: of its input.
    """

    layer: nn.Conv2d
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self) -> None:
        """Run it once, on the same features each time."""
        x = _features(self.shape, self.dtype).detach().requires_grad_()
        with torch.enable_grad():
            y = self.layer(x)
        torch.autograd.grad(y, x, _features(tuple(y.shape), self.dtype))


_FEATURES: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}


def _features(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return cached channels-last noise, so that no timing includes its generation."""
    if (shape, dtype) not in _FEATURES:
        noise = torch.randn(shape, device=device(), dtype=dtype)
        _FEATURES[shape, dtype] = noise.contiguous(memory_format=torch.channels_last)
    return _FEATURES[shape, dtype]


def convolutions(f: nn.Module, x: Tensor) -> list[Call]:
    """Return every convolution of a network with the shape of its input when the network runs on `x`."""
    calls: list[Call] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        calls.append(Call(layer, tuple(inputs[0].shape), layer.weight.dtype))

    layers = [module for module in f.modules() if isinstance(module, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    with torch.no_grad():
        f(x)
    for hook in hooks:
        hook.remove()
    return calls


def _set_up(case: str) -> tuple[nn.Module, Tensor, Tensor]:
    name, _, precision = case.rpartition(" in ")
    model = MODELS[name]
    x, y, _ = model.images(model.count)
    return optimized_copy(model.network(), x, precision=precision), x, y


def _measured(work: Callable[[], object]) -> Work:
    gflops = count_compute(work).flops / 1e9

    def run() -> Outcome:
        _, seconds = timed(work)
        return {"seconds": seconds, "gflops_per_second": gflops / seconds, "per_gflop": seconds / gflops}

    return run


IMPLEMENTATIONS: Mapping[str, Setup] = {WHOLE: whole, ALONE: alone, BEST: best}


def figures(measured: Measured) -> Iterator[Figure]:
    """Divide the rate of the gradient by that of its convolutions, and by that of the fastest convolution."""
    for case in dict.fromkeys(point.case for point in measured):
        own, its, top = (Point(NAME, case, name) for name in (WHOLE, ALONE, BEST))
        yield figure(measured, own, its, unit="per_gflop", target=0.75, **_rates(measured, own, its))
        yield figure(measured, own, top, unit="per_gflop", **_rates(measured, own, top))


def _rates(measured: Measured, a: Point, b: Point) -> dict[str, float]:
    rates = {"gflops_per_second": a, "gflops_per_second_against": b}
    return {name: max(o["gflops_per_second"] for o in measured[point]) for name, point in rates.items()}
