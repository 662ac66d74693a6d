"""The mean over noisy copies: random, seeded by torch, and the network itself where there is hardly any noise."""

from __future__ import annotations

import pytest
import torch
from helpers import toy_networks
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.freezing import frozen
from forefend.models.noise_averaging import MeanOverNoise


class Sign(nn.Module):
    """Surely class 1 where the first pixel is above 0, surely class 0 elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        above = (x[:, 0, 0, 0] > 0).float()
        return 50 * torch.stack([1 - above, above], dim=1)


def test_without_noise_it_is_the_network() -> None:
    f, x = toy_networks.classifier(), torch.rand(5, 1, 6, 6)
    torch.testing.assert_close(MeanOverNoise(f, 1e-7, 3)(x), f(x).log_softmax(1), atol=1e-4, rtol=1e-4)


def test_it_averages_probabilities_over_the_normal_distribution() -> None:
    x = torch.tensor([0.0, 0.25, -0.5]).view(3, 1, 1, 1)
    chance = MeanOverNoise(Sign(), 0.25, 20000)(x).exp()[:, 1]
    torch.testing.assert_close(chance, torch.tensor([0.5, 0.8413, 0.0228]), atol=0.012, rtol=0)


def test_noise_differs_each_call_and_repeats_with_the_seed() -> None:
    pipeline, x = MeanOverNoise(toy_networks.classifier(), 0.25, 4), torch.rand(5, 1, 6, 6)
    torch.manual_seed(3)
    first, second = pipeline(x), pipeline(x)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(frozen(pipeline)(x), first)
    assert first.shape == (5, 4)
    assert not torch.equal(first[0], pipeline(x[:1].expand(2, -1, -1, -1))[1])


@pytest.mark.parametrize(("sigma", "copies"), [(0.0, 8), (-1.0, 8), (float("nan"), 8), (0.25, 0)])
def test_no_noise_and_no_copy_are_refused(sigma: float, copies: int) -> None:
    with pytest.raises(InputError, match="give sigma above 0"):
        MeanOverNoise(toy_networks.classifier(), sigma, copies)
