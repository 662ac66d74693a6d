"""Test images in the form that a user gave them, beside the models that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forefend.data import ImageDataset
from forefend.data.registry import as_image_dataset
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.models.given_images import images_for_network


def images_for(models: Sequence[EvaluatedModel], data: Any) -> ImageDataset:
    """Return test images of any form; those whose classes are only numbered have one for each logit of the first model.

    Raises:
        InputError: the images or labels cannot be used, or the model changes itself when it is called.
    """
    return images_for_network(models[0].network, data, models[0].name) if models else as_image_dataset(data)
