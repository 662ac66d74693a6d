"""Densely connected networks with a stem for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers


@final
class DenseNet(nn.Module):
    """A 3x3 stem, densely connected stages, transitions that halve the image, mean pool, linear.

    The paper's DenseNet-BC (bottlenecks, compression by half) without its 7x7 stem and max-pool, as usual on CIFAR.

    Args:
        growth: number of channels that each layer adds.
        blocks: number of layers in each stage: 6, 12, 24, 16 for DenseNet-121.

    Source: Huang et al., arXiv 1608.06993.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        size: int = 32,
        *,
        growth: int = 32,
        blocks: Sequence[int] = (6, 12, 24, 16),
    ):
        super().__init__()
        self.settings: dict[str, int | list[int]] = {
            **{"channels": channels, "classes": classes, "size": size},
            **{"growth": growth, "blocks": list(blocks)},
        }
        width = 2 * growth
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.stages, self.transitions = nn.ModuleList(), nn.ModuleList()
        for stage, layers in enumerate(blocks):
            if stage:
                self.transitions.append(_Transition(width, width // 2))
                width //= 2
            self.stages.append(nn.Sequential(*(_Layer(width + i * growth, growth) for i in range(layers))))
            width += layers * growth
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(width, classes)
        ends = tuple(f"stages.{stage}" for stage in range(len(blocks)))
        third = min(3, len(ends)) - 1
        self.feature_layers = FeatureLayers(ends, features="relu", third=f"{ends[third]}.{blocks[third] - 1}.conv2")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, H, W)`."""
        x = self.stages[0](self.conv1(x))
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(transition(x))
        x = self.relu(self.bn(x))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


@final
class _Layer(nn.Module):
    """BatchNorm, ReLU and a 1x1 convolution, then with a 3x3 one; the output is placed before the input's channels."""

    def __init__(self, before: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv1(F.relu(self.bn1(x)))
        new = self.conv2(F.relu(self.bn2(new)))
        return torch.cat((new, x), 1)


@final
class _Transition(nn.Module):
    def __init__(self, before: int, width: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2, ceil_mode=True)
