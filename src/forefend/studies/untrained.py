"""Preprocessors without a training of their own: transformations, and a robust classifier that draws its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from forefend.models import preprocessors
from forefend.models.defense import Defense, DefenseCard
from forefend.models.freezing import frozen
from forefend.studies.networks import Trained
from forefend.studies.tasks import Place, Task


@dataclass(frozen=True)
class Transform:
    """A transformation of images without weights.

    Args:
        architecture: a key of `TRANSFORMS`.
        channels: of the images.
    """

    recipe: ClassVar[str] = "transform"

    architecture: str
    channels: int = 1

    def config(self) -> dict[str, Any]:
        """Everything that identifies it."""
        return {"transform": self.architecture}

    def needs(self) -> list[Task]:
        """Nothing is trained."""
        return []

    def defense(self, place: Place) -> nn.Module:
        """Build it."""
        network = preprocessors.build(self.architecture, channels=self.channels)
        return Defense(network, DefenseCard(self.architecture, dict(network.settings))).eval()  # type: ignore[arg-type]


@dataclass(frozen=True)
class Drawn:
    """A robust classifier that shows the frozen one a picture of the class it predicts.

    It transfers to every classifier by construction, and takes nothing from the classifier behind it: a preprocessor
    that is not more robust before unseen classifiers than this one has gained nothing by being trained with guides.

    Args:
        classifier: the training of the robust classifier.
        data: of the pictures: for each class, the training image that the robust classifier is surest of.
        images: size of the sample of training images; None for all.
        sharpness: factor on the logits; the larger, the more the likeliest class is shown alone.
    """

    recipe: ClassVar[str] = "drawn"
    architecture: ClassVar[str] = "pictures"

    classifier: Trained
    data: str
    images: int | None
    sharpness: float = 10.0

    def config(self) -> dict[str, Any]:
        """Everything that identifies it."""
        own = {"data": self.data, "images": self.images, "sharpness": self.sharpness}
        return {"drawn by": self.classifier.config(), **own}

    def needs(self) -> list[Task]:
        """The training of the classifier."""
        return [self.classifier]

    def defense(self, place: Place) -> nn.Module:
        """Choose the pictures."""
        robust, images = self.classifier.named(place).network, place.images(self.data, "train", self.images)
        x, y, _ = images.batch(torch.arange(len(images)))
        with torch.no_grad():
            sure = torch.cat([robust(part).softmax(1) for part in x.split(500)])
        classes = range(len(images.classes))
        pictures = torch.stack([x[(sure[:, k] * (y == k)).argmax()] for k in classes])
        return Drawing(robust, pictures, self.sharpness).eval()


@final
class Drawing(nn.Module):
    """The mean of one picture for each class, weighted by the sharpened probabilities of a classifier.

    Args:
        classifier: images to logits `(B, K)`.
        pictures: `(K, C, H, W)` in [0, 1].
        sharpness: factor on the logits.
    """

    pictures: Tensor

    def __init__(self, classifier: nn.Module, pictures: Tensor, sharpness: float) -> None:
        super().__init__()
        self.classifier, self.sharpness = frozen(classifier), sharpness
        self.register_buffer("pictures", pictures)

    def forward(self, x: Tensor) -> Tensor:
        """Return images of the shape of `x`."""
        weights = (self.sharpness * self.classifier(x)).softmax(1)
        return torch.einsum("bk,kchw->bchw", weights, self.pictures)


Preprocessor = Trained | Transform | Drawn


def trainings_of(network: Any) -> list[Task]:
    """The trainings that a classifier or a preprocessor comes from."""
    if isinstance(network, Task):
        return [network]
    return network.needs() if isinstance(network, Transform | Drawn) else []
