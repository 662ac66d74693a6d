"""A network of another library as a classifier: logits alone, and named feature layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.feature_search import find_feature_layers


@final
class Adapted(nn.Module):
    """A network whose output may be an object with `logits`, as in transformers.

    Args:
        network: normalized images `(B, C, H, W)` to logits `(B, K)`, or to an object or mapping that holds `logits`.
        shape: (channels, height, width) of its images, with which feature layers are found; None for unknown.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.network = network
        self.shape = shape
        self._layers: FeatureLayers | None = None

    @property
    def feature_layers(self) -> FeatureLayers:
        """The feature layers that one forward pass finds, by their names in this module.

        Raises:
            InputError: the shape of the images is unknown, or there are no such layers.
        """
        own = getattr(self.network, "feature_layers", None)
        if isinstance(own, FeatureLayers):
            return own.inside("network")
        if self._layers is None:
            if self.shape is None:
                raise InputError(
                    "The feature layers of this classifier are not known without the shape of its images: give "
                    "channels and size where it is loaded."
                )
            tensor = next(self.network.parameters(), torch.empty(0))
            x = torch.zeros(1, *self.shape, device=tensor.device)
            self._layers = find_feature_layers(self, x)
        return self._layers

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        return logits_in(self.network(x))


def logits_in(output: Any) -> Tensor:
    """Return the logits in what a network returned."""
    if isinstance(output, Mapping):
        output = output.get("logits", output)
    logits: Tensor = getattr(output, "logits", output)
    return logits
