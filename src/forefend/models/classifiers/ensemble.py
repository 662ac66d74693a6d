"""Several classifiers as one: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.losses import mean_probability


@final
class Ensemble(nn.Module):
    """The logarithm of the mean probability of each class over several classifiers, to be used as logits.

    Behind a defense, as `Defended(defense, Ensemble(networks))`, it is the defended ensemble of RTFE, appendix B.

    Args:
        networks: classifiers of the same classes.

    Raises:
        InputError: no classifier was given, or something else.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if not networks or not all(isinstance(network, nn.Module) for network in networks):
            raise InputError(f"The ensemble has {networks!r:.60}, expected one or more torch modules.")
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of images `(B, C, H, W)` in [0, 1]."""
        return mean_probability(torch.stack([network(x) for network in self.networks]))
