"""The models that are attacked, and the attacks on them.

Models are returned as loading leaves them: in eval mode, with weights that require gradients.
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
WIDTHS, DEPTHS = (32, 64, 128), (2, 2, 2)  # of the preprocessor: 472,256 parameters


@dataclass(frozen=True)
class BenchmarkModel:
    """A model and the threat model that it is attacked under.

    Args:
        radius: of the l∞ threat model, as text.
        network: builds the network, from images in [0, 1] to logits.
        weights: file in the folder `classifiers` of the data folder; "" for random weights.
        count: number of images attacked at once.
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
        """Return test images of all classes with labels and dataset index; noise and predictions for random weights."""
        if self.weights:
            x, y, index = data.sample(data.load("cifar-10", "test", data_dir=data_folder()), count, seed=0).batch(
                torch.arange(count)
            )
        else:
            index = torch.arange(count)
            x = KeyedRNG(index, purpose="bench").uniform(torch.empty(count, 3, 32, 32))
            with torch.no_grad():
                y = self.network().cpu()(x).argmax(1)
        return x.to(device()), y.to(device()), index.to(device())

    def missing_file(self) -> str:
        """Return the first file that is missing, "" where none is."""
        folder = data_folder()
        needed = [folder / "classifiers" / self.weights, folder / "cifar-10-batches-py"] if self.weights else []
        return next((str(path) for path in needed if not path.exists()), "")


def data_folder() -> Path:
    """Return the folder of the data sets and of the published classifiers."""
    return Path(os.environ.get("FOREFEND_DATA", ".data"))


def pretrained(architecture: str, weights: str, std: Sequence[float]) -> nn.Module:
    """Load a published classifier."""
    network = load_weights(architecture, data_folder() / "classifiers" / weights, mean=CIFAR_MEAN, std=std)
    return network.eval().requires_grad_(True).to(device())


@final
class DefendedModel(nn.Module):
    """A classifier behind a U-Net of random weights, whose output is mixed in so weakly that accuracy stays.

    Args:
        classifier: from images to logits.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.front = DenoisingUNet(3, WIDTHS, DEPTHS)
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        logits: Tensor = self.classifier(x + 0.05 * (self.front(x) - x))
        return logits


def defended(classifier: Callable[[], nn.Module]) -> nn.Module:
    """Build a classifier behind a U-Net."""
    return DefendedModel(classifier()).eval().to(device())


def random_resnet20() -> nn.Module:
    """Build an untrained classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = classifiers.build("resnet20", channels=3, classes=10, size=32)
    return Normalized(network, CIFAR_MEAN, (0.25, 0.25, 0.25)).eval().to(device())


R20, R4B = "chenyaofo-cifar10-resnet20.pth", "abcrown-cifar10-resnet4b-robust.pth"
resnet20 = partial(pretrained, "resnet20", R20, (0.2023, 0.1994, 0.2010))
resnet4b = partial(pretrained, "resnet4b", R4B, (0.2471, 0.2435, 0.2616))
MODELS = {
    "resnet20": BenchmarkModel("1/255", resnet20, R20),
    "resnet20 at 8/255": BenchmarkModel("8/255", resnet20, R20),
    "defended resnet20": BenchmarkModel("1/255", partial(defended, resnet20), R20, count=32),
    "resnet4b": BenchmarkModel("8/255", resnet4b, R4B),
    "random weights": BenchmarkModel("1/255", partial(defended, random_resnet20), count=32),
}


@dataclass(frozen=True)
class AttackCase:
    """An attack on a model, the same for every implementation.

    Args:
        name: of the model.
        steps: gradients of one restart.
        restarts: attempts with different starts.
        images: how many; None for the count of the model.
        apgd: APGD if true, else PGD with steps of a quarter of the radius.
    """

    name: str
    steps: int
    restarts: int = 1
    images: int | None = None
    apgd: bool = False

    def __str__(self) -> str:
        restarts = f" x {self.restarts}" if self.restarts > 1 else ""
        return f"{'APGD' if self.apgd else 'PGD'}-{self.steps}{restarts} on {self.name}"

    @property
    def model(self) -> BenchmarkModel:
        """The model itself."""
        return MODELS[self.name]

    @property
    def count(self) -> int:
        """The number of images."""
        return self.images or self.model.count

    def attack(self) -> PGD | APGD:
        """Return our attack, whose settings the baselines take over."""
        threat = self.model.threat
        return APGD(threat, self.steps) if self.apgd else PGD(threat, self.steps, threat.radius / 4)


def parse_case(text: str) -> AttackCase:
    """Parse what `str` wrote, such as `PGD-20 x 5 on resnet20`; the number of images follows after a comma.

    Raises:
        InputError: the text is no attack case.
    """
    try:
        attack, _, rest = text.partition(" on ")
        name, _, images = rest.partition(", ")
        kind, _, numbers = attack.partition("-")
        steps, _, restarts = numbers.partition(" x ")
        choose(name, MODELS, "model")
        count = int(images.removesuffix(" images")) if images else None
        return AttackCase(name, int(steps), int(restarts or 1), count, {"PGD": False, "APGD": True}[kind])
    except (KeyError, ValueError) as error:
        raise InputError(f"{text!r} is no attack case, expected e.g. 'PGD-20 x 5 on resnet20' ({error}).") from None
