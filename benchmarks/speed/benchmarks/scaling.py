"""Growth of the time of a gradient with guides, steps, image size and batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import random_resnet20
from benchmarks.speed.results import Figure, Measured, Outcome, Point, Setup, Work, figure, line, quartiles
from benchmarks.speed.timing import device, timed
from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce
from forefend.models.defended import pipelines
from forefend.models.optimized_copy import optimized_copy
from forefend.models.preprocessors import DenoisingUNet
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

NAME = "growth"
OURS = "ours"
THREAT = Linf("8/255")
AXES: dict[str, list[int]] = {
    "guides": [1, 2, 3, 6],
    "steps": [1, 2, 5, 7, 10],
    "side": [16, 32, 64, 128],
    "batch": [4, 8, 16, 32, 64],
}
PIXELS = 16 * 32 * 32  # of a batch, along every axis but "batch"


def points(quick: bool) -> list[Point]:
    """Return every value of every axis; for a quick run two values of two axes."""
    axes = {"guides": [1, 3], "side": [16, 64]} if quick else AXES
    return [Point(NAME, f"{axis} {value}", OURS) for axis, values in axes.items() for value in values]


def work(case: str) -> Work:
    """Set up PGD through a preprocessor and guides, with one axis at another value than the default."""
    axis, _, value = case.rpartition(" ")
    sizes = {"guides": 1, "steps": 1, "side": 32, "batch": PIXELS // 32**2} | {axis: int(value)}
    if axis == "side":
        sizes["batch"] = PIXELS // sizes["side"] ** 2
    f, x, y, index = _networks(sizes["guides"], sizes["side"], sizes["batch"])
    attack = PGD(THREAT, sizes["steps"], THREAT.radius / 4, loss=Mean(ce))
    repeats = 2 if axis == "steps" else 4

    def attacked() -> None:
        for _ in range(repeats):
            attack(f, x, y, rng=KeyedRNG(index))

    def run() -> Outcome:
        _, seconds = timed(attacked)
        gradients = repeats * sizes["steps"]
        images = seconds / repeats / sizes["batch"]
        return {"seconds": images if axis in ("batch", "guides") else seconds / repeats, "gradients": gradients}

    run()
    return run


def _networks(guides: int, side: int, batch: int) -> tuple[Callable[[Tensor], Any], Tensor, Tensor, Tensor]:
    """Return a pipeline of optimized copies, of a preprocessor and `guides` classifiers, with noise as images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        front: nn.Module = DenoisingUNet(3, (16, 32, 64), (2, 2, 2)).eval().to(device())
    index = torch.arange(batch, device=device())
    x = KeyedRNG(index, purpose="bench").uniform(torch.empty(batch, 3, side, side, device=device()))
    classifiers = [random_resnet20() for _ in range(guides)]
    prepared = [optimized_copy(network, x, precision="bf16") for network in (front, *classifiers)]
    return pipelines(prepared[0], prepared[1:]), x, index % 10, index


IMPLEMENTATIONS: Mapping[str, Setup] = {OURS: work}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare the seconds of each value with those of the smallest, and fit a line through each axis."""
    for axis in AXES:
        of_axis = [point for point in measured if point.case.startswith(f"{axis} ")]
        values = [float(point.case.rpartition(" ")[2]) for point in of_axis]
        seconds = [quartiles([float(o["seconds"]) for o in measured[point]])[0] for point in of_axis]
        if len(of_axis) < 2:
            continue
        slope, intercept, fit = line(values, seconds)
        for point, value in zip(of_axis[1:], values[1:], strict=True):
            fitted: dict[str, Any] = {"times": value / values[0], "slope": slope, "intercept": intercept, "r2": fit}
            yield figure(measured, of_axis[0], point, **fitted)
