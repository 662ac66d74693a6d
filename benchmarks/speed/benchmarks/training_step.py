"""How fast is a training step? RTFE with PGD-7 as `fit` takes it, beside a plain loop such as papers publish."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import DEPTHS, TARGETS, WIDTHS
from benchmarks.speed.results import Figure, Maker, Measured, Outcome, Point, Work, figure
from benchmarks.speed.timing import now
from forefend import data
from forefend.data import ImageDataset
from forefend.models import classifiers
from forefend.models.guide import Guide
from forefend.models.preprocessors import DenoisingUNet
from forefend.recipes import RTFE
from forefend.recipes.base import Batch, Memory, Networks
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf
from forefend.training.config import TrainingConfig
from forefend.training.crafting import Crafting, live, prepared_bf16
from forefend.training.trainer import fit

NAME = "training"
STEP, PARITY = "PGD-7 step, U-Net before resnet20", "20 steps in fp32, small networks"
OURS, FP32, PLAIN = "ours", "ours, fp32", "plain loop"


@dataclass(frozen=True)
class Scene:
    """What is trained, the same for every subject.

    Args:
        widths: of the U-Net.
        guide: architecture of the classifier behind it.
        size: side of the images.
        batch: images a step.
        steps: how many are taken.
        attack_steps: gradient steps of the inner attack.
        target: whose images and classifier are used; none for noise and random weights.
    """

    widths: tuple[int, ...]
    guide: str
    size: int
    batch: int
    steps: int
    attack_steps: int = 7
    target: str = ""

    def preprocessor(self) -> nn.Module:
        """The U-Net, untrained, the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return DenoisingUNet(3, self.widths, DEPTHS[: len(self.widths)])

    def classifier(self) -> nn.Module:
        """The guide, in eval mode."""
        if self.target:
            return TARGETS[self.target].network().cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            return classifiers.build(self.guide, channels=3, classes=10, size=self.size).eval()

    def images(self) -> ImageDataset:
        """One batch for each step."""
        count = self.batch * self.steps
        if self.target:
            x, y, _ = (tensor.cpu() for tensor in TARGETS[self.target].images(count))
        else:
            x = KeyedRNG(torch.arange(count), purpose="bench").uniform(torch.empty(count, 3, self.size, self.size))
            y = torch.arange(count) % 10
        return data.from_tensors("bench", x, y, split="train")

    def recipe(self, **more: Any) -> RTFE:
        """The paper's own, at this batch size."""
        return RTFE(threat=Linf("8/255"), steps=self.attack_steps, epochs=1, batch_size=self.batch, **more)


SCENES = {
    STEP: Scene(WIDTHS, "resnet20", 32, 32, 2, target="resnet20"),
    f"{STEP}, random weights": Scene((16, 32), "tinyresnet", 32, 16, 2),
    PARITY: Scene((4, 8), "tinyresnet", 8, 8, 20, attack_steps=3),
}


def points(quick: bool) -> list[Point]:
    """A step's time, and the losses of twenty small ones."""
    case = f"{STEP}, random weights" if quick else STEP
    gate = [Point(NAME, PARITY, subject) for subject in (FP32, PLAIN)]
    return [Point(NAME, case, subject) for subject in (OURS, FP32, PLAIN)] + gate


@dataclass(frozen=True)
class Watched(RTFE):
    """RTFE that keeps its losses and when each step ended."""

    kept: list[tuple[float, float]] = field(default_factory=list, compare=False)

    def settings(self) -> dict[str, Any]:
        """RTFE's own."""
        return {name: value for name, value in super().settings().items() if name != "kept"}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """RTFE's own; once the player has moved the time is kept."""
        for name, loss in super().updates(train, craft, batch, memory):
            yield name, loss
            self.kept.append((float(loss.detach()), now()))


def work(crafting: Crafting, precision: str, case: str) -> Work:
    """The scene's steps by `fit`; what comes before the first and after the last is not timed.

    Args:
        crafting: what attacks see.
        precision: of the weights' step.
        case: name of the scene.
    """
    scene = SCENES[case]
    images = scene.images()
    guide = Guide(scene.classifier())

    def run() -> Outcome:
        began: list[float] = []
        batches: list[list[int]] = []

        def beginning(x: Tensor, rng: KeyedRNG) -> Tensor:
            batches.append(rng.index.tolist())
            began.append(now())
            return x

        watched = Watched(**{f.name: getattr(scene.recipe(), f.name) for f in fields(RTFE)})
        networks = Networks(preprocessor=scene.preprocessor(), guides=[guide])
        with contextlib.redirect_stderr(io.StringIO()):
            fit(watched, images, networks, augment=beginning, config=TrainingConfig(crafting, precision))
        seconds = sum(end - start for start, (_, end) in zip(began, watched.kept, strict=True))
        losses = [loss for loss, _ in watched.kept]
        return {"seconds": seconds / scene.steps, "losses": losses, "batches": batches, "images": scene.batch}

    run()
    return run


SUBJECTS: Mapping[str, Maker] = {
    OURS: partial(work, prepared_bf16, "bf16"),
    FP32: partial(work, live, "fp32"),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Ours over the plain loop, beside the largest difference between the losses of twenty small steps in fp32."""
    gates = [point for point in measured if point.case == PARITY]
    gate = difference(measured, *gates) if len(gates) == 2 else None
    for case in dict.fromkeys(point.case for point in measured if point.case != PARITY):
        plain = Point(NAME, case, PLAIN)
        for own, bar in ((Point(NAME, case, OURS), 3.5), (Point(NAME, case, FP32), None)):
            if own in measured and plain in measured:
                here = difference(measured, own, plain)
                yield figure(measured, own, plain, bar=bar, gate=gate, loss_difference=here)


def difference(measured: Measured, a: Point, b: Point) -> float:
    """The largest difference between two loss trajectories, in parts of the largest loss."""
    first, second = measured[a][0]["losses"], measured[b][0]["losses"]
    return max(abs(p - q) for p, q in zip(first, second, strict=True)) / max(abs(p) for p in first)
