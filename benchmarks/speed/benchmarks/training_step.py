"""Speed of a training step: RTFE with PGD-7 by `fit`, beside a plain loop such as papers publish."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import DEPTHS, MODELS, WIDTHS
from benchmarks.speed.results import Figure, Measured, Outcome, Point, Setup, Work, figure
from benchmarks.speed.timing import now
from forefend import data
from forefend.attacks.base import Attack
from forefend.data import ImageDataset
from forefend.models import classifiers
from forefend.models.guide import Guide
from forefend.models.preprocessors import DenoisingUNet
from forefend.recipes import RTFE
from forefend.recipes.base import Batch, Networks, Steps
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit

NAME = "training"
STEP, PARITY = "PGD-7 step, U-Net before resnet20", "20 steps in fp32, small networks"
OURS, FP32, PLAIN = "ours", "ours, fp32", "plain loop"


@dataclass(frozen=True)
class TrainingCase:
    """What is trained, the same for every implementation.

    Args:
        widths: of the U-Net.
        guide: architecture of the guide.
        size: of the images, in pixels per side.
        batch: images per step.
        steps: number of training steps.
        attack_steps: gradient steps of the inner attack.
        model: provides images and classifier; "" for noise and random weights.
    """

    widths: tuple[int, ...]
    guide: str
    size: int
    batch: int
    steps: int
    attack_steps: int = 7
    model: str = ""

    def preprocessor(self) -> nn.Module:
        """Return the untrained U-Net, with the same weights in every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return DenoisingUNet(3, self.widths, DEPTHS[: len(self.widths)])

    def classifier(self) -> nn.Module:
        """Return the guide, in eval mode."""
        if self.model:
            return MODELS[self.model].network().cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            return classifiers.build(self.guide, channels=3, classes=10, size=self.size).eval()

    def images(self) -> ImageDataset:
        """Return one batch per step."""
        count = self.batch * self.steps
        if self.model:
            x, y, _ = (tensor.cpu() for tensor in MODELS[self.model].images(count))
        else:
            x = KeyedRNG(torch.arange(count), purpose="bench").uniform(torch.empty(count, 3, self.size, self.size))
            y = torch.arange(count) % 10
        return data.from_tensors("bench", x, y, split="train")

    def recipe(self, **more: Any) -> RTFE:
        """Return the recipe of the paper with this batch size."""
        return RTFE(threat=Linf("8/255"), steps=self.attack_steps, epochs=1, batch_size=self.batch, **more)


CASES = {
    STEP: TrainingCase(WIDTHS, "resnet20", 32, 32, 2, model="resnet20"),
    f"{STEP}, random weights": TrainingCase((16, 32), "tinyresnet", 32, 16, 2),
    PARITY: TrainingCase((4, 8), "tinyresnet", 8, 8, 20, attack_steps=3),
}


def points(quick: bool) -> list[Point]:
    """Return the time of a step, and the losses of twenty small ones."""
    case = f"{STEP}, random weights" if quick else STEP
    gate = [Point(NAME, PARITY, name) for name in (FP32, PLAIN)]
    return [Point(NAME, case, name) for name in (OURS, FP32, PLAIN)] + gate


@dataclass(frozen=True)
class RecordedRTFE(RTFE):
    """RTFE that records each loss and the time when its step ended."""

    recorded: list[tuple[float, float]] = field(default_factory=list, compare=False)

    def settings(self) -> dict[str, Any]:
        """Return the settings of RTFE."""
        return {name: value for name, value in super().settings().items() if name != "recorded"}

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Yield the losses of RTFE; record each once its optimizer has stepped."""
        for name, loss in super().training_step(train, craft, batch, attack, state):
            yield name, loss
            self.recorded.append((float(loss.detach()), now()))


def work(attack_copy: str | None, precision: str, name: str) -> Work:
    """Set up the training steps of a case by `fit`; only the steps are timed.

    Args:
        attack_copy: precision of the copies that attacks see.
        precision: of the training step.
        name: of the case.
    """
    case = CASES[name]
    images = case.images()
    guide = Guide(case.classifier())

    def run() -> Outcome:
        began: list[float] = []
        batches: list[list[int]] = []

        def record_start(x: Tensor, rng: KeyedRNG) -> Tensor:
            batches.append(rng.index.tolist())
            began.append(now())
            return x

        recipe = RecordedRTFE(**{f.name: getattr(case.recipe(), f.name) for f in fields(RTFE)})
        networks = Networks(preprocessor=case.preprocessor(), guides=[guide])
        with contextlib.redirect_stderr(io.StringIO()):
            fit(recipe, images, networks, augment=record_start, config=TrainingConfig(attack_copy, precision))
        seconds = sum(end - start for start, (_, end) in zip(began, recipe.recorded, strict=True))
        losses = [loss for loss, _ in recipe.recorded]
        return {"seconds": seconds / case.steps, "losses": losses, "batches": batches, "images": case.batch}

    run()
    return run


IMPLEMENTATIONS: Mapping[str, Setup] = {
    OURS: partial(work, "bf16", "bf16"),
    FP32: partial(work, None, "fp32"),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare ours with the plain loop; add the largest difference between the losses of twenty small fp32 steps."""
    gates = [point for point in measured if point.case == PARITY]
    gate = difference(measured, *gates) if len(gates) == 2 else None
    for case in dict.fromkeys(point.case for point in measured if point.case != PARITY):
        plain = Point(NAME, case, PLAIN)
        for own, target in ((Point(NAME, case, OURS), 3.5), (Point(NAME, case, FP32), None)):
            if own in measured and plain in measured:
                here = difference(measured, own, plain)
                yield figure(measured, own, plain, target=target, gate=gate, loss_difference=here)


def difference(measured: Measured, a: Point, b: Point) -> float:
    """Return the largest difference between two sequences of losses, divided by the largest loss."""
    first, second = measured[a][0]["losses"], measured[b][0]["losses"]
    return max(abs(p - q) for p, q in zip(first, second, strict=True)) / max(abs(p) for p in first)
