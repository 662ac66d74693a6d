"""A defended classifier of small images, and one whose optimal attack is known, for the tests of other libraries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forefend.models import preprocessors
from forefend.models.defended import Defended


@pytest.fixture
def given() -> nn.Module:
    """Return a classifier of gray images of 8 × 8 pixels, whose parameters require a gradient."""
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 10))
    return nn.Sequential(*body).eval()


@pytest.fixture
def model(given: nn.Module) -> Defended:
    """Return the classifier behind a U-Net."""
    torch.manual_seed(1)
    return Defended(preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1]), given).eval()


@pytest.fixture
def linear() -> Defended:
    """Return a linear classifier of two classes behind a defense that returns its input."""
    torch.manual_seed(2)
    return Defended(preprocessors.build("identity", channels=1), nn.Sequential(nn.Flatten(), nn.Linear(64, 2))).eval()


@pytest.fixture
def images() -> Tensor:
    """Return eight images, a power of two: means and sums over them give gradients of equal digits."""
    return torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(3))
