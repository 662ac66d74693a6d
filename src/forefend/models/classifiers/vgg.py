"""VGG networks with BatchNorm and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers


@final
class Vgg(nn.Module):
    """Stages of 3x3 convolutions with BatchNorm and ReLU, a max-pool after each stage, mean pool, linear.

    The paper's network with BatchNorm and one linear layer instead of three, as usual on CIFAR.

    Args:
        depths: number of convolutions in each stage: 2, 2, 3, 3, 3 for VGG-16, 2, 2, 4, 4, 4 for VGG-19.
        widths: channels of each stage.

    Source: Simonyan and Zisserman, arXiv 1409.1556 (configurations D and E).
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        size: int = 32,
        *,
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        widths: Sequence[int] = (64, 128, 256, 512, 512),
    ):
        super().__init__()
        self.settings: dict[str, int | list[int]] = {
            **{"channels": channels, "classes": classes, "size": size},
            **{"depths": list(depths), "widths": list(widths)},
        }
        self.stages = nn.ModuleList(map(_stage, (channels, *widths), widths, depths))
        self.linear = nn.Linear(widths[-1], classes)
        ends = tuple(f"stages.{stage}" for stage in range(len(self.stages)))
        third = min(3, len(ends)) - 1
        # Each convolution is followed by its BatchNorm and its ReLU.
        self.feature_layers = FeatureLayers(ends, features=ends[-1], third=f"{ends[third]}.{3 * (depths[third] - 1)}")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, H, W)`."""
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2, ceil_mode=True)
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def _stage(before: int, width: int, depth: int) -> nn.Sequential:
    stage = nn.Sequential()
    for _ in range(depth):
        stage.extend((nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()))
        before = width
    return stage
