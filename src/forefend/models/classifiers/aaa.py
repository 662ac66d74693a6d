"""Convolutional classifiers B and F of AAA, which the paper describes in words only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit


@final
class AaaCnn(nn.Module):
    """Stages of convolutions with ReLU and a max-pool, then one or two linear layers.

    B has one convolution and two linear layers, F four convolutions and one linear layer. The paper states no widths,
    kernels or pools.

    Args:
        widths: channels of each stage.
        depth: number of convolutions in a stage.
        kernel: height and width of the convolutions, odd.
        hidden: width of the hidden linear layer, 0 for none.

    Source: Vaishnavi et al., arXiv 1909.05921 (AAA).
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        size: int = 32,
        *,
        widths: Sequence[int] = (32, 64),
        depth: int = 2,
        kernel: int = 3,
        hidden: int = 0,
    ):
        super().__init__()
        self.settings: dict[str, int | list[int]] = {
            **{"channels": channels, "classes": classes, "size": size, "widths": list(widths)},
            **{"depth": depth, "kernel": kernel, "hidden": hidden},
        }
        self._shape = (channels, size)
        self.stages = nn.ModuleList()
        before, side = channels, size
        for width in widths:
            stage = nn.Sequential()
            for _ in range(depth):
                stage.extend((nn.Conv2d(before, width, kernel, padding=kernel // 2), nn.ReLU()))
                before = width
            self.stages.append(stage)
            side = -(-side // 2)
        before *= side * side
        self.head = nn.Sequential()
        if hidden:
            self.head.extend((nn.Linear(before, hidden), nn.ReLU()))
        self.head.append(nn.Linear(hidden or before, classes))
        ends = tuple(f"stages.{stage}" for stage in range(len(widths)))
        self.feature_layers = FeatureLayers(
            ends, features=ends[-1], third=f"{ends[min(3, len(ends)) - 1]}.{2 * (depth - 1)}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, *self._shape)
        for stage in self.stages:
            x = F.max_pool2d(stage(x), 2, ceil_mode=True)
        logits: Tensor = self.head(x.flatten(1))
        return logits
