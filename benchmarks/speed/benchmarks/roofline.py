"""How near is a gradient to what the machine can do? Beside its convolutions alone, and the best convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import TARGETS
from benchmarks.speed.results import Figure, Maker, Measured, Outcome, Point, Work, figure
from benchmarks.speed.timing import device, timed
from forefend.attacks.pgd import input_gradient
from forefend.losses import ce
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.precision import PRECISIONS, supported_dtype
from forefend.runtime.profiling import count_compute

NAME = "roofline"
WHOLE, ALONE, BEST = "ours", "its convolutions alone", "a 3x3 convolution of 64 channels"
REPEATS = 4  # gradients in a round


def points(quick: bool) -> list[Point]:
    """The gradient of each target, its convolutions alone, and the best convolution, in bf16 and in fp32."""
    targets = ["random weights"] if quick else ["resnet20", "defended resnet20"]
    cases = [f"{target} in {precision}" for target in targets for precision in PRECISIONS]
    return [Point(NAME, case, subject) for case in cases for subject in (WHOLE, ALONE, BEST)]


def whole(case: str) -> Work:
    """The gradient of a prepared network."""
    f, x, y = _set_up(case)

    def gradients() -> None:
        for _ in range(REPEATS):
            input_gradient(f, x, y, ce)

    return _measured(gradients)


def alone(case: str) -> Work:
    """The convolutions of a prepared network, there and back to their inputs, on features of the same shapes."""
    f, x, _ = _set_up(case)
    calls = convolutions(f, x)

    def run() -> None:
        for _ in range(REPEATS):
            for call in calls:
                call()

    return _measured(run)


def best(case: str) -> Work:
    """A convolution that suits the machine: 64 channels of 32 x 32, 64 images."""
    dtype, _ = supported_dtype(case.rpartition(" ")[2], device())
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(device(), dtype).requires_grad_(False)
    call = Call(layer.to(memory_format=torch.channels_last), (64, 64, 32, 32), dtype)  # type: ignore[call-overload]

    def run() -> None:
        for _ in range(REPEATS):
            call()

    return _measured(run)


@dataclass(frozen=True)
class Call:
    """One convolution, there and back to its input.

    Args:
        layer: the convolution, its weights frozen.
        shape: of its input.
        dtype: likewise.
    """

    layer: nn.Conv2d
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __call__(self) -> None:
        """Do it once, on the same features each time."""
        x = self._input().detach().requires_grad_()
        with torch.enable_grad():
            y = self.layer(x)
        torch.autograd.grad(y, x, self._like(y))

    def _input(self) -> Tensor:
        return _features(self.shape, self.dtype)

    def _like(self, y: Tensor) -> Tensor:
        return _features(tuple(y.shape), self.dtype)


_FEATURES: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}


def _features(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Noise of a shape, channels last; made once, so that making it is not timed."""
    if (shape, dtype) not in _FEATURES:
        noise = torch.randn(shape, device=device(), dtype=dtype)
        _FEATURES[shape, dtype] = noise.contiguous(memory_format=torch.channels_last)
    return _FEATURES[shape, dtype]


def convolutions(f: nn.Module, x: Tensor) -> list[Call]:
    """Every convolution of a network, with the shape of what it is given when it looks at `x`."""
    calls: list[Call] = []

    def seen(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d)
        calls.append(Call(layer, tuple(inputs[0].shape), layer.weight.dtype))

    layers = [module for module in f.modules() if isinstance(module, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(seen) for layer in layers]
    with torch.no_grad():
        f(x)
    for hook in hooks:
        hook.remove()
    return calls


def _set_up(case: str) -> tuple[nn.Module, Tensor, Tensor]:
    name, _, precision = case.rpartition(" in ")
    x, y, _ = TARGETS[name].images(TARGETS[name].count)
    return optimized_copy(TARGETS[name].network(), x, precision=precision), x, y


def _measured(work: Callable[[], object]) -> Work:
    gflops = count_compute(work).flops / 1e9

    def run() -> Outcome:
        _, seconds = timed(work)
        return {"seconds": seconds, "gflops_per_second": gflops / seconds, "per_gflop": seconds / gflops}

    return run


SUBJECTS: Mapping[str, Maker] = {WHOLE: whole, ALONE: alone, BEST: best}


def figures(measured: Measured) -> Iterator[Figure]:
    """The share of the convolutions' rate that the whole gradient keeps up, and of the best convolution's."""
    for case in dict.fromkeys(point.case for point in measured):
        own, its, top = (Point(NAME, case, subject) for subject in (WHOLE, ALONE, BEST))
        yield figure(measured, own, its, unit="per_gflop", bar=0.75, **_rates(measured, own, its))
        yield figure(measured, own, top, unit="per_gflop", **_rates(measured, own, top))


def _rates(measured: Measured, a: Point, b: Point) -> dict[str, float]:
    rates = {"gflops_per_second": a, "gflops_per_second_against": b}
    return {name: max(o["gflops_per_second"] for o in measured[point]) for name, point in rates.items()}
