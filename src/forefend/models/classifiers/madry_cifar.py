"""The network of Madry et al.'s CIFAR-10 challenge, classifier D of AAA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers


@final
class MadryCifar(nn.Module):
    """Standardization of each image, a 3x3 stem, three stages of pre-activation residual units, mean pool, linear.

    As each image is standardized inside the network, `Normalized` has almost no effect. Units use LeakyReLU of slope
    0.1; shortcuts that change the shape are mean-pooled and padded with zero channels.

    Args:
        widths: channels of the stem and of each stage: 16, 16, 32, 64, or ten times the last three in the wide network.
        units: number of residual units in each stage.

    Source: Madry et al., arXiv 1706.06083; He et al., arXiv 1603.05027.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        size: int = 32,
        *,
        widths: Sequence[int] = (16, 16, 32, 64),
        units: int = 5,
    ):
        super().__init__()
        self.settings: dict[str, int | list[int]] = {
            **{"channels": channels, "classes": classes, "size": size},
            **{"widths": list(widths), "units": units},
        }
        before = widths[0]
        self.conv1 = nn.Conv2d(channels, before, 3, padding=1, bias=False)
        self.stages = nn.Sequential()
        for width in widths[1:]:
            stage = nn.Sequential()
            for unit in range(units):
                first = unit == 0
                stride = 2 if first and len(self.stages) else 1
                stage.append(_Unit(before, width, stride, activated=first and not len(self.stages)))
                before = width
            self.stages.append(stage)
        self.bn = nn.BatchNorm2d(before)
        self.relu = nn.LeakyReLU(0.1)
        self.linear = nn.Linear(before, classes)
        ends = tuple(f"stages.{stage}" for stage in range(len(self.stages)))
        self.feature_layers = FeatureLayers(
            ends, features="relu", third=f"{ends[min(3, len(ends)) - 1]}.{units - 1}.conv2"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of images `(B, C, H, W)`."""
        x = self.stages(self.conv1(standardize(x)))
        x = self.relu(self.bn(x))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def standardize(x: Tensor) -> Tensor:
    """Subtract each image's mean and divide by its deviation, or by `1 / sqrt(C * H * W)` if that is larger."""
    centered = x - x.mean((1, 2, 3), keepdim=True)
    # The bound is applied to the variance, as the root has no finite gradient at zero.
    variance = centered.square().mean((1, 2, 3), keepdim=True)
    return centered / variance.clamp(min=1 / (x.shape[1] * x.shape[2] * x.shape[3])).sqrt()


@final
class _Unit(nn.Module):
    """Two BatchNorms, LeakyReLUs and 3x3 convolutions with a shortcut without parameters.

    The shortcut starts at the input, or after the first LeakyReLU where `activated`.
    """

    def __init__(self, before: int, width: int, stride: int, activated: bool):
        super().__init__()
        self.stride = stride
        self.activated = activated
        self.front = (width - before) // 2
        self.back = width - before - self.front
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.leaky_relu(self.bn1(x), 0.1)
        beside = F.avg_pool2d(inner if self.activated else x, self.stride, ceil_mode=True)
        beside = F.pad(beside, (0, 0, 0, 0, self.front, self.back))
        inner = F.leaky_relu(self.bn2(self.conv1(inner)), 0.1)
        return torch.add(self.conv2(inner), beside)
