"""Test images in the form that a user gave them, beside the models that they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from forefend.data import ImageDataset
from forefend.data.dataset import InMemoryDataset
from forefend.data.encoded_images import EncodedImages
from forefend.data.registry import as_image_dataset
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.model_checks import kept_state
from forefend.models.freezing import device_of, frozen
from forefend.runtime.rng import torch_seed


def images_for(models: Sequence[EvaluatedModel], data: Any) -> ImageDataset:
    """Return test images of any form; those whose classes are only numbered have one for each logit of the first model.

    Raises:
        InputError: the images or labels cannot be used, or the model changes itself when it is called.
    """
    images = as_image_dataset(data, classes=partial(_count_logits, models[0]) if models else None)
    if models and isinstance(images, InMemoryDataset | EncodedImages) and images.numbered:
        count = _count_logits(models[0], images.batch(torch.arange(min(2, len(images))))[0]) or 0
        return replace(images, classes=tuple(map(str, range(max(count, len(images.classes))))), numbered=False)
    return images


def _count_logits(model: EvaluatedModel, x: Tensor) -> int | None:
    """Return the number of logits for images, `(B, C, H, W)`; None if there are none, which later checks explain."""
    with kept_state(model.network, model.name), torch.no_grad(), torch_seed(0):
        try:
            shape = frozen(model.network)(x.to(device_of(model.network))).shape
        except Exception:  # a network of the user may raise anything
            return None
    return int(shape[1]) if len(shape) == 2 and shape[0] == len(x) and shape[1] > 1 else None
