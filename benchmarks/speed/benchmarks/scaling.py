"""How does the cost grow? A prepared gradient with guides, steps, the image's side and the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import random_resnet20
from benchmarks.speed.results import Figure, Maker, Measured, Outcome, Point, Work, figure, line, quartiles
from benchmarks.speed.timing import device, timed
from forefend.attacks.pgd import PGD
from forefend.losses import Mean, ce
from forefend.models.defense import pipelines
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
PIXELS = 16 * 32 * 32  # of a batch, along every axis but its own


def points(quick: bool) -> list[Point]:
    """Every value of every axis; on short notice the ends of two."""
    axes = {"guides": [1, 3], "side": [16, 64]} if quick else AXES
    return [Point(NAME, f"{axis} {value}", OURS) for axis, values in axes.items() for value in values]


def work(case: str) -> Work:
    """PGD through a preprocessor and guides, all but one axis at its usual value."""
    axis, _, value = case.rpartition(" ")
    usual = {"guides": 1, "steps": 1, "side": 32, "batch": PIXELS // 32**2} | {axis: int(value)}
    if axis == "side":
        usual["batch"] = PIXELS // usual["side"] ** 2
    f, x, y, index = _scene(usual["guides"], usual["side"], usual["batch"])
    attack = PGD(THREAT, usual["steps"], THREAT.radius / 4, loss=Mean(ce))
    repeats = 2 if axis == "steps" else 4

    def attacked() -> None:
        for _ in range(repeats):
            attack(f, x, y, rng=KeyedRNG(index))

    def run() -> Outcome:
        _, seconds = timed(attacked)
        gradients = repeats * usual["steps"]
        images = seconds / repeats / usual["batch"]
        return {"seconds": images if axis in ("batch", "guides") else seconds / repeats, "gradients": gradients}

    run()
    return run


def _scene(guides: int, side: int, batch: int) -> tuple[Callable[[Tensor], Any], Tensor, Tensor, Tensor]:
    """A small preprocessor before so many classifiers of the same form, prepared; and noise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        front: nn.Module = DenoisingUNet(3, (16, 32, 64), (2, 2, 2)).eval().to(device())
    index = torch.arange(batch, device=device())
    x = KeyedRNG(index, purpose="bench").uniform(torch.empty(batch, 3, side, side, device=device()))
    classifiers = [random_resnet20() for _ in range(guides)]
    prepared = [optimized_copy(network, x, precision="bf16") for network in (front, *classifiers)]
    return pipelines(prepared[0], prepared[1:]), x, index % 10, index


SUBJECTS: Mapping[str, Maker] = {OURS: work}


def figures(measured: Measured) -> Iterator[Figure]:
    """How many times the smallest value's seconds the others take, with the line through each axis and its fit."""
    for axis in AXES:
        of_axis = [point for point in measured if point.case.startswith(f"{axis} ")]
        values = [float(point.case.rpartition(" ")[2]) for point in of_axis]
        seconds = [quartiles([float(o["seconds"]) for o in measured[point]])[0] for point in of_axis]
        if len(of_axis) < 2:
            continue
        slope, intercept, fit = line(values, seconds)
        for point, value in zip(of_axis[1:], values[1:], strict=True):
            told: dict[str, Any] = {"times": value / values[0], "slope": slope, "intercept": intercept, "r2": fit}
            yield figure(measured, of_axis[0], point, **told)
