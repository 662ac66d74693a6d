"""Targets: what the bench attacks. Others' classifiers, alone and behind a network, on real images; and noise for want.

The networks are handed out as loading leaves them: in eval mode, their weights asking for gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from benchmarks.speed.timing import device
from forefend import data
from forefend.attacks.auto_pgd import APGD
from forefend.attacks.pgd import PGD
from forefend.checks import InputError, choose
from forefend.models import classifiers
from forefend.models.classifiers import Normalized
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.preprocessors import DenoisingUNet
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
WIDTHS, DEPTHS = (32, 64, 128), (2, 2, 2)  # of the network in front: 472,256 parameters


@dataclass(frozen=True)
class Target:
    """A classifier and how it is attacked.

    Args:
        radius: of the l∞ threat model, as text.
        network: builds it: images in [0, 1] to logits.
        weights: file in the data folder's `classifiers` that it needs; none for random weights.
        count: images attacked at once.
    """

    radius: str
    network: Callable[[], nn.Module]
    weights: str = ""
    count: int = 64

    @property
    def threat(self) -> Linf:
        """The threat model."""
        return Linf(self.radius)

    def images(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Test images of all classes, labels and dataset index; for random weights noise, and their own answers."""
        if self.weights:
            x, y, index = data.sample(data.load("cifar-10", "test", data_dir=folder()), count, seed=0).batch(
                torch.arange(count)
            )
        else:
            index = torch.arange(count)
            x = KeyedRNG(index, purpose="bench").uniform(torch.empty(count, 3, 32, 32))
            with torch.no_grad():
                y = self.network().cpu()(x).argmax(1)
        return x.to(device()), y.to(device()), index.to(device())

    def lacks(self) -> str:
        """The file that is not there, "" where nothing is missing."""
        needed = [folder() / "classifiers" / self.weights, folder() / "cifar-10-batches-py"] if self.weights else []
        return next((str(path) for path in needed if not path.exists()), "")


def folder() -> Path:
    """Where data sets and others' classifiers lie."""
    return Path(os.environ.get("FOREFEND_DATA", ".data"))


def trained(architecture: str, weights: str, std: Sequence[float]) -> nn.Module:
    """Others' classifier."""
    network = load_weights(architecture, folder() / "classifiers" / weights, mean=CIFAR_MEAN, std=std)
    return network.eval().requires_grad_(True).to(device())


@final
class Behind(nn.Module):
    """A classifier behind a U-Net of random weights, whose picture is mixed in so thinly that it can still see.

    Args:
        classifier: images to logits.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.front = DenoisingUNet(3, WIDTHS, DEPTHS)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)`."""
        logits: Tensor = self.classifier(x + 0.05 * (self.front(x) - x))
        return logits


def behind(classifier: Callable[[], nn.Module]) -> nn.Module:
    """A classifier behind a U-Net."""
    return Behind(classifier()).eval().to(device())


def random_resnet20() -> nn.Module:
    """A classifier that was never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = classifiers.build("resnet20", channels=3, classes=10, size=32)
    return Normalized(network, CIFAR_MEAN, (0.25, 0.25, 0.25)).eval().to(device())


R20, R4B = "chenyaofo-cifar10-resnet20.pth", "abcrown-cifar10-resnet4b-robust.pth"
resnet20 = partial(trained, "resnet20", R20, (0.2023, 0.1994, 0.2010))
resnet4b = partial(trained, "resnet4b", R4B, (0.2471, 0.2435, 0.2616))
TARGETS = {
    "resnet20": Target("1/255", resnet20, R20),
    "resnet20 at 8/255": Target("8/255", resnet20, R20),
    "defended resnet20": Target("1/255", partial(behind, resnet20), R20, count=32),
    "resnet4b": Target("8/255", resnet4b, R4B),
    "random weights": Target("1/255", partial(behind, random_resnet20), count=32),
}


@dataclass(frozen=True)
class AttackCase:
    """An attack on a target, as peers and ours are told to run it.

    Args:
        target: name of the target.
        steps: gradients of one attempt.
        restarts: attempts with different starts.
        images: how many; None for as many as the target's batch.
        apgd: whether APGD finds its own steps, else PGD takes steps of a quarter of the radius.
    """

    target: str
    steps: int
    restarts: int = 1
    images: int | None = None
    apgd: bool = False

    def __str__(self) -> str:
        times = f" x {self.restarts}" if self.restarts > 1 else ""
        return f"{'APGD' if self.apgd else 'PGD'}-{self.steps}{times} on {self.target}"

    @property
    def on(self) -> Target:
        """The target itself."""
        return TARGETS[self.target]

    @property
    def count(self) -> int:
        """How many images are attacked."""
        return self.images or self.on.count

    def ours(self) -> PGD | APGD:
        """Our attack, whose settings the others take over."""
        threat = self.on.threat
        return APGD(threat, self.steps) if self.apgd else PGD(threat, self.steps, threat.radius / 4)


def read(case: str) -> AttackCase:
    """The assault that `str` wrote, such as `PGD-20 x 5 on resnet20`; images follow after a comma.

    Raises:
        InputError: it is none.
    """
    try:
        words, _, rest = case.partition(" on ")
        name, _, images = rest.partition(", ")
        kind, _, numbers = words.partition("-")
        steps, _, restarts = numbers.partition(" x ")
        choose(name, TARGETS, "target")
        count = int(images.removesuffix(" images")) if images else None
        return AttackCase(name, int(steps), int(restarts or 1), count, {"PGD": False, "APGD": True}[kind])
    except (KeyError, ValueError) as error:
        raise InputError(f"{case!r} is no assault, expected such as 'PGD-20 x 5 on resnet20' ({error}).") from None
