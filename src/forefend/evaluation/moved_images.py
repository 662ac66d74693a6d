"""Measure how far the images of a trial are moved, as they are evaluated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forefend.evaluation.result_store import DigestedImages
from forefend.models.defended import Defended
from forefend.runtime.rng import torch_seed


class MovedImages:
    """The mean absolute differences of `Movement` for each image of one trial, by dataset index.

    Args:
        network: the evaluated model; nothing is measured unless it is a `Defended`.
        images: the clean images.
    """

    def __init__(self, network: nn.Module, images: DigestedImages) -> None:
        self.preprocessor = network.defense if isinstance(network, Defended) else None
        self.images = images
        self.found: dict[int, list[float]] = {}

    def measure(self, x_adv: Tensor, index: Tensor) -> None:
        """Keep the differences of images that are evaluated; later ones of an image replace earlier ones."""
        if self.preprocessor is None:
            return
        numbers = index.tolist()
        x = self.images.images.batch(self.images.rows(numbers))[0].to(x_adv.device)
        with torch_seed(0), torch.no_grad():  # the state of random preprocessors is kept
            output = self.preprocessor(x_adv)
        if output.shape != x.shape:  # a preprocessor that resizes
            return
        pairs = (x_adv - x, output - x, output - x_adv)
        rows = torch.stack([difference.abs().flatten(1).mean(1) for difference in pairs], 1).tolist()
        self.found |= {i: [float(f"{value:.4g}") for value in row] for i, row in zip(numbers, rows, strict=True)}
