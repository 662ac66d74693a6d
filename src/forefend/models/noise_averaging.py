"""The mean prediction of a defended classifier over noisy copies: denoised smoothing in a form to attack."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.losses import mean_probability


@final
class MeanOverNoise(nn.Module):
    """The logarithm of the mean probability of each class over noisy copies of the image; random at every call.

    The empirical form of a smoothed classifier, whose votes have no gradient; `SmoothedClassifier` certifies. The
    noise uses torch's generator.

    Args:
        network: images to logits, such as a classifier behind a denoiser.
        sigma: standard deviation of the noise, in [0, 1]-pixel units; noisy copies are not clipped.
        copies: number of noisy copies.

    Raises:
        InputError: no noise, or no copy.

    Source: Salman et al., arXiv 2003.01908; averaged for the attack as in Salman et al., arXiv 1906.04584, section 2.2.
    """

    def __init__(self, network: nn.Module, sigma: float, copies: int):
        super().__init__()
        if not sigma > 0 or copies < 1:
            raise InputError(
                f"The noise has sigma {sigma:g} and {copies} copies: give sigma above 0 and 1 copy or more."
            )
        self.network = network
        self.settings = {"sigma": sigma, "copies": copies}

    def forward(self, x: Tensor) -> Tensor:
        """Return log-probabilities `(B, K)`, to be used as logits."""
        noisy = x.repeat(int(self.settings["copies"]), 1, 1, 1)
        logits = self.network(noisy + self.settings["sigma"] * torch.randn_like(noisy))
        return mean_probability(logits.view(-1, len(x), logits.shape[1]))
