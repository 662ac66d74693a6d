"""Residual networks for small images: He et al.'s CIFAR networks, and the ImageNet shapes with a 3x3 stem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers


@final
class ResNet(nn.Module):
    """A 3x3 stem, stages of residual blocks of which all but the first halve the image, mean pool, linear.

    Widths 16, 32, 64 and plain blocks are the network of section 4.2; widths 64, 128, 256, 512 the ImageNet shape
    (table 1) without its 7x7 stem and max-pool, as usual on CIFAR.

    Args:
        widths: channels of each stage.
        blocks: number of residual blocks in each stage.
        bottleneck: use blocks of 1x1, 3x3, 1x1 convolutions with four times the width at their end.
        projection: where the shape changes, use a 1x1 convolution with BatchNorm as shortcut (option B) instead of
            subsampling and zero channels (option A).

    Source: He et al., arXiv 1512.03385.
    """

    def __init__(
        self,
        channels: int = 3,
        classes: int = 10,
        size: int = 32,
        *,
        widths: Sequence[int] = (16, 32, 64),
        blocks: Sequence[int] = (3, 3, 3),
        bottleneck: bool = False,
        projection: bool = False,
    ):
        super().__init__()
        self.settings: dict[str, int | list[int]] = {
            **{"channels": channels, "classes": classes, "size": size},
            **{"widths": list(widths), "blocks": list(blocks), "bottleneck": bottleneck, "projection": projection},
        }
        block: type[_Bottleneck | _BasicBlock] = _Bottleneck if bottleneck else _BasicBlock
        self.conv1 = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = nn.Sequential()
        before = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            stage = nn.Sequential()
            for stride in [2 if len(self.stages) else 1] + [1] * (count - 1):
                stage.append(block(before, width, stride, projection))
                before = width * block.expansion
            self.stages.append(stage)
        self.linear = nn.Linear(before, classes)
        ends = tuple(f"stages.{stage}" for stage in range(len(self.stages)))
        third = min(3, len(ends)) - 1
        last = f"conv{3 if bottleneck else 2}"
        self.feature_layers = FeatureLayers(
            stages=ends, features=ends[-1], third=f"{ends[third]}.{blocks[third] - 1}.{last}"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, H, W)`."""
        x = self.stages(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


@final
class _BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, before: int, width: int, stride: int, projection: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(before, width, stride, projection)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


@final
class _Bottleneck(nn.Module):
    """A 1x1 convolution to `width`, a 3x3 one, and a 1x1 one to four times `width`, with a shortcut."""

    expansion = 4

    def __init__(self, before: int, width: int, stride: int, projection: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.expansion * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * width)
        self.shortcut = _shortcut(before, self.expansion * width, stride, projection)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        inner = F.relu(self.bn2(self.conv2(inner)))
        return F.relu(self.bn3(self.conv3(inner)) + self.shortcut(x))


@final
class _PadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, padded with zero channels on both sides to `width`."""

    def __init__(self, before: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.front = (width - before) // 2
        self.back = width - before - self.front

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.front, self.back))


def _shortcut(before: int, width: int, stride: int, projection: bool) -> nn.Module:
    if before == width and stride == 1:
        return nn.Identity()
    if projection:
        return nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
    return _PadShortcut(before, width, stride)
