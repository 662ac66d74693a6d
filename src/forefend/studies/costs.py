"""What a defense costs: the time and the parameters that it adds, and the gradients of its training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from forefend.evaluation.inspection import BATCHES
from forefend.evaluation.latency import Latency, latency
from forefend.models.freezing import device_of
from forefend.runtime.files import read_versioned, write_versioned
from forefend.studies.measurements import Pipeline
from forefend.studies.networks import Trained
from forefend.studies.tasks import Place, Task

PRICE = "price.json"


@dataclass(frozen=True)
class Price:
    """The cost of a defense.

    Args:
        milliseconds: added to the time of one image in the largest batch of `forefend latency`.
        parameters: added to those of the classifier.
        gradients: of one image that its training computed; 0 without a training.
    """

    milliseconds: float
    parameters: int
    gradients: float


@dataclass(frozen=True)
class Cost(Task):
    """The cost of a pipeline beyond that of its classifier.

    Args:
        pipeline: the classifier and its defense.
        trained: the training that is counted; None where there is none.
    """

    pipeline: Pipeline
    trained: Trained | None = None

    def title(self) -> str:
        """Pipeline."""
        return f"cost-{self.pipeline.data}-{self.pipeline.name()}"

    def config(self) -> dict[str, Any]:
        """Everything that the numbers depend on, but for the machine."""
        return {"cost of": self.pipeline.config(), "trained": self.trained and self.trained.config()}

    def needs(self) -> Sequence[Task]:
        """The trainings of the networks."""
        return [*self.pipeline.needs(), *([self.trained] if self.trained else [])]

    def gradients(self, place: Place) -> float:
        """None; a few forward passes."""
        return 0.0

    def compute(self, place: Place, folder: Path) -> None:
        """Measure the pipeline and its classifier."""
        network = self.pipeline.model(place).network
        x, _, _ = place.images(self.pipeline.data, "test", BATCHES[-1]).batch(torch.arange(BATCHES[-1]))
        classifier = self.pipeline.classifier.named(place).network.to(device_of(network))
        whole, alone = (latency(one, x.to(device_of(network))) for one in (network, classifier))
        price = Price(_time(whole) - _time(alone), whole.parameters - alone.parameters, self._counted(place))
        write_versioned(folder / PRICE, {"price": asdict(price)})

    def count(self, place: Place) -> Price:
        """Read the result."""
        return Price(**read_versioned(self.folder(place) / PRICE)["price"])

    def _counted(self, place: Place) -> float:
        """The gradients of the epochs and images that the training had, which a budget may have decided."""
        if self.trained is None:
            return 0.0
        config = read_versioned(self.trained.folder(place) / "config.json")["config"]
        attack = self.trained.built.inner_attack()
        return float(config["settings"]["epochs"] * config["images"] * (1 + (attack.steps if attack else 0)))


def _time(measured: Latency) -> float:
    return measured.milliseconds[str(BATCHES[-1])]
