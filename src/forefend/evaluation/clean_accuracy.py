"""Predictions on clean images, and signs in them that a model does not work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forefend.checks import predictions
from forefend.data import ImageDataset
from forefend.evaluation.statistics import wilson
from forefend.models.defended import Defended
from forefend.models.freezing import device_of, frozen
from forefend.models.output_checks import check_classifier, check_clean_accuracy, is_near_chance
from forefend.runtime.batch_size import AdaptiveBatchSize

ONE_CLASS = 0.9  # share of the predictions above which a model is called constant
DROP = 0.2  # of accuracy, from a classifier alone to the same one with its defense
COMPARED = 512  # images that a classifier alone predicts, where it is not evaluated itself


@dataclass(frozen=True)
class CleanPredictions:
    """The class predicted for each clean image.

    Args:
        predicted: by dataset index.
        labels: the true classes, by dataset index.
        classes: the names of the classes.
    """

    predicted: Mapping[int, int]
    labels: Mapping[int, int]
    classes: Sequence[str]

    def misclassified(self) -> dict[int, bool]:
        """Return whether each image is misclassified, by dataset index."""
        return {index: predicted != self.labels[index] for index, predicted in self.predicted.items()}

    def per_class(self) -> list[int]:
        """Return how many images each class is predicted for."""
        numbers = torch.tensor(list(self.predicted.values()), dtype=torch.int64)
        return numbers.bincount(minlength=len(self.classes)).tolist()

    def _shown(self, number: int) -> str:
        """Return the number of a class, with its name where it has one."""
        return f"{number} ({self.classes[number]})" if is_named(self.classes) else str(number)

    def faults(self, name: str, alone: CleanPredictions | None = None) -> list[str]:
        """Return what shows that a model does not work on clean images, a sentence each.

        Args:
            name: the name of the model.
            alone: the predictions of its classifier without the defense; None if there is none.
        """
        found, n = [], len(self.predicted)
        accuracy, chance = _right(self) / n, 1 / len(self.classes)
        if is_near_chance(accuracy, len(self.classes)):
            found.append(f"{name} gets {accuracy:.1%} of {n} clean images right, near chance ({chance:.1%}).")
        counts = self.per_class()
        top = max(range(len(self.classes)), key=counts.__getitem__)
        true = sum(self.labels[index] == top for index in self.predicted)
        if counts[top] > ONE_CLASS * n >= true:
            found.append(
                f"{name} predicts class {self._shown(top)} for {counts[top]} of {n} clean images, and {true} are of "
                "that class."
            )
        if alone and (common := alone.predicted.keys() & self.predicted.keys()):
            after, before = (_right(these, common) for these in (self, alone))
            m = len(common)
            if before - after > DROP * m and wilson(before, m)[0] > wilson(after, m)[1]:
                found.append(
                    f"{name} gets {after / m:.1%} of {m} clean images right, its classifier alone {before / m:.1%}."
                )
        return found


def _right(these: CleanPredictions, images: Iterable[int] | None = None) -> int:
    indices = these.predicted if images is None else images
    return sum(these.predicted[index] == these.labels[index] for index in indices)


def is_named(classes: Sequence[str]) -> bool:
    """Return whether classes have names that are not just their numbers."""
    return list(classes) != list(map(str, range(len(classes))))


def labels_of(images: ImageDataset) -> dict[int, int]:
    """Return the labels of a dataset by dataset index."""
    return dict(zip(images.index.tolist(), images.labels.tolist(), strict=True))


def clean_predictions(network: nn.Module, images: ImageDataset, batch_size: int = 250) -> CleanPredictions:
    """Predict the class of each clean image.

    Raises:
        InputError: a logit is NaN or infinite.
    """

    def predict(rows: Tensor) -> dict[int, int]:
        x, _, index = images.batch(rows)
        with torch.no_grad():
            logits = network(x.to(device_of(network)))
        return dict(zip(index.tolist(), predictions(logits, index).tolist(), strict=True))

    parts = AdaptiveBatchSize(batch_size).map(torch.arange(len(images)), predict)
    found = {index: predicted for part in parts for index, predicted in part.items()}
    return CleanPredictions(found, labels_of(images), images.classes)


def classifier_alone(network: nn.Module, images: ImageDataset) -> CleanPredictions | None:
    """Predict the first images by the classifier of a defended one alone; None without a defense."""
    if not isinstance(network, Defended):
        return None
    return clean_predictions(network.classifier, images.subset(torch.arange(min(COMPARED, len(images)))))


def clean_accuracy(name: str, network: nn.Module, images: ImageDataset) -> float:
    """Measure the clean accuracy of a classifier, in [0, 1].

    Raises:
        InputError: the classifier does not return logits, or its accuracy is near chance.
    """
    network = frozen(network)
    x, _, _ = images.batch(torch.arange(min(2, len(images))))
    with torch.no_grad():
        check_classifier(network, x, len(images.classes), name)
    accuracy = _right(clean_predictions(network, images)) / len(images)
    check_clean_accuracy(accuracy, len(images.classes), len(images), name)
    return accuracy
