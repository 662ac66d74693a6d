"""Images in the form that a user gave them, beside the network that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.dataset import InMemoryDataset
from forefend.data.encoded_images import EncodedImages
from forefend.data.registry import as_image_dataset
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import device_of, frozen
from forefend.runtime.rng import torch_seed


def images_for_network(network: nn.Module | None, data: Any, name: str, *, split: str = "test") -> ImageDataset:
    """Return images of any form; those whose classes are only numbered have one for each logit of a network.

    Args:
        network: images in [0, 1] to logits; None where there is none to ask.
        data: as for `as_image_dataset`.
        name: the network's name, for messages.
        split: of data that do not say theirs.

    Raises:
        InputError: the images or labels cannot be used, or the network changes itself when it is called.
    """
    if network is None:
        return as_image_dataset(data, split=split)
    count = partial(_count_logits, network, name)
    images = as_image_dataset(data, classes=count, split=split)
    if isinstance(images, InMemoryDataset | EncodedImages) and images.numbered:
        logits = count(images.batch(torch.arange(min(2, len(images))))[0]) or 0
        return replace(images, classes=tuple(map(str, range(max(logits, len(images.classes))))), numbered=False)
    return images


def _count_logits(network: nn.Module, name: str, x: Tensor) -> int | None:
    """Return the number of logits for images, `(B, C, H, W)`; None if there are none, which later checks explain."""
    with kept_state(network, name), torch.no_grad(), torch_seed(0):
        try:
            shape = frozen(network)(x.to(device_of(network))).shape
        except Exception:  # a network of the user may raise anything
            return None
    return int(shape[1]) if len(shape) == 2 and shape[0] == len(x) and shape[1] > 1 else None


@contextmanager
def kept_state(network: nn.Module, name: str) -> Iterator[str]:
    """Restore the tensors of a network that calls have changed, and refuse it; yield its fingerprint.

    Raises:
        InputError: the block has changed a parameter or a buffer.
    """
    before = fingerprint(network)
    held = [(tensor, tensor.detach().clone()) for tensor in chain(network.parameters(), network.buffers())]
    try:
        yield before
    finally:
        changed = fingerprint(network) != before
        for tensor, value in held if changed else ():
            tensor.data.copy_(value)
    if changed:
        raise InputError(
            f"{name} changes its own buffers or weights when it is called, expected the same network for every image: "
            "call its eval(), or remove the update from its forward."
        )
