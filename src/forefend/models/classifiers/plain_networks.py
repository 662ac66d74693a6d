"""Networks of layers in sequence, for images of one size: LeNet-5, a multilayer perceptron and others of the papers."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit, check_side

_CONV2 = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="conv2")


@final
class PlainNetwork(nn.Sequential):
    """Named layers in sequence, from images `(B, C, size, size)` to logits `(B, K)`.

    Args:
        settings: arguments of the function that made the network: channels, classes, size.
        feature_layers: the layers that recipes read.
        layers: the layers by name.
    """

    def __init__(self, settings: dict[str, int], feature_layers: FeatureLayers, **layers: nn.Module):
        super().__init__()
        self.settings = settings
        self.feature_layers = feature_layers
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        for layer in self:
            x = layer(x)
        return x


def cnn(channels: int = 1, classes: int = 10, size: int = 28, *, width: int = 16) -> PlainNetwork:
    """Two 3x3 convolutions with BatchNorm and max-pools, then one linear layer: fast to train on a CPU.

    `width` is the number of channels of the first convolution; the second has twice as many. About a million
    multiplications for 28x28 pixels. The linear layer reads the whole feature map: with a mean before it,
    Fashion-MNIST loses several points at this width.
    """
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size, "width": width},
        _CONV2,
        conv1=nn.Conv2d(channels, width, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2, ceil_mode=True),
        conv2=nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        bn2=nn.BatchNorm2d(2 * width),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2, ceil_mode=True),
        flatten=nn.Flatten(),
        linear=nn.Linear(2 * width * (-(-size // 4)) ** 2, classes),
    )


def mlp(channels: int = 1, classes: int = 10, size: int = 28, *, width: int = 200) -> PlainNetwork:
    """Two hidden layers of `width` units; classifier C of AAA (1909.05921), which does not state the widths."""
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size, "width": width},
        FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="fc2"),
        flatten=nn.Flatten(),
        fc1=nn.Linear(channels * size * size, width),
        relu1=nn.ReLU(),
        fc2=nn.Linear(width, width),
        relu2=nn.ReLU(),
        fc3=nn.Linear(width, classes),
    )


def lenet5(channels: int = 1, classes: int = 10, size: int = 28) -> PlainNetwork:
    """Two padded 3x3 convolutions with max-pools and two linear layers, as in advertorch (1902.07623)."""
    side = check_side(size // 4, size, least=4)
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        _CONV2,
        conv1=nn.Conv2d(channels, 32, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 64, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        linear1=nn.Linear(64 * side * side, 200),
        relu3=nn.ReLU(),
        linear2=nn.Linear(200, classes),
    )


def fast_at(channels: int = 1, classes: int = 10, size: int = 28) -> PlainNetwork:
    """Two padded 4x4 convolutions of stride 2 and two linear layers (Wong et al., 2001.03994)."""
    side = check_side(size // 4, size, least=4)
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        _CONV2,
        conv1=nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(16, 32, 4, stride=2, padding=1),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        fc1=nn.Linear(32 * side * side, 100),
        relu3=nn.ReLU(),
        fc2=nn.Linear(100, classes),
    )


def marabou(channels: int = 3, classes: int = 10, size: int = 32) -> PlainNetwork:
    """Two unpadded 4x4 convolutions of stride 2 and three linear layers (Katz et al., CAV 2019)."""
    side = check_side((size // 2 - 1) // 2 - 1, size, least=10)
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        _CONV2,
        conv1=nn.Conv2d(channels, 32, 4, stride=2),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(32, 64, 4, stride=2),
        relu2=nn.ReLU(),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * side * side, 128),
        relu3=nn.ReLU(),
        fc2=nn.Linear(128, 64),
        relu4=nn.ReLU(),
        fc3=nn.Linear(64, classes),
    )


def madry_mnist(channels: int = 1, classes: int = 10, size: int = 28) -> PlainNetwork:
    """Two 5x5 convolutions with max-pools and two linear layers: the MNIST challenge (Madry et al., 1706.06083).

    As in the authors' code, weights start as a normal distribution of deviation 0.1 cut off at 0.2, and biases at 0.1.
    """
    network = PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        _CONV2,
        conv1=nn.Conv2d(channels, 32, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2, ceil_mode=True),
        conv2=nn.Conv2d(32, 64, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2, ceil_mode=True),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * (-(-size // 4)) ** 2, 1024),
        relu3=nn.ReLU(),
        fc2=nn.Linear(1024, classes),
    )
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.constant_(parameter, 0.1)
        else:
            nn.init.trunc_normal_(parameter, std=0.1, a=-0.2, b=0.2)
    return network


def small_cnn(channels: int = 1, classes: int = 10, size: int = 28) -> PlainNetwork:
    """Four unpadded 3x3 convolutions, a max-pool after each pair, three linear layers (TRADES, 1901.08573)."""
    side = check_side(((size - 4) // 2 - 4) // 2, size, least=16)
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        FeatureLayers(stages=("relu2", "relu4"), features="relu4", third="conv4"),
        conv1=nn.Conv2d(channels, 32, 3),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(32, 32, 3),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 3),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(64, 64, 3),
        relu4=nn.ReLU(),
        pool4=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * side * side, 200),
        relu5=nn.ReLU(),
        fc2=nn.Linear(200, 200),
        relu6=nn.ReLU(),
        fc3=nn.Linear(200, classes),
    )


def zheng(channels: int = 1, classes: int = 10, size: int = 28) -> PlainNetwork:
    """Two 5x5 and two 3x3 convolutions, a max-pool after each pair, two linear layers (Zheng et al., 1808.05537).

    The authors' BatchNorm between the linear layers never updates its statistics, so it is a learned scale and offset.
    """
    side = check_side(size // 4, size, least=4)
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        FeatureLayers(stages=("relu2", "relu4"), features="relu4", third="conv4"),
        conv1=nn.Conv2d(channels, 32, 5, padding=2),
        relu1=nn.ReLU(),
        conv2=nn.Conv2d(32, 32, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(64, 64, 3, padding=1),
        relu4=nn.ReLU(),
        pool4=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64 * side * side, 1024),
        relu5=nn.ReLU(),
        affine=_ScaleAndOffset(1024),
        fc2=nn.Linear(1024, classes),
    )


def resnet4b(channels: int = 3, classes: int = 10, size: int = 32) -> PlainNetwork:
    """A stem and four residual blocks without BatchNorm, two linear layers (alpha-beta-CROWN, 2103.06624)."""
    return PlainNetwork(
        {"channels": channels, "classes": classes, "size": size},
        FeatureLayers(stages=("layer1", "layer2"), features="layer2", third="layer2.1.conv2"),
        conv1=nn.Conv2d(channels, 16, 3, stride=2, padding=1),
        relu1=nn.ReLU(),
        layer1=nn.Sequential(_ResidualBlock(16, 2), _ResidualBlock(32, 1)),
        layer2=nn.Sequential(_ResidualBlock(32, 2), _ResidualBlock(32, 1)),
        flatten=nn.Flatten(),
        linear1=nn.Linear(32 * (-(-size // 8)) ** 2, 100),
        relu2=nn.ReLU(),
        linear2=nn.Linear(100, classes),
    )


@final
class _ScaleAndOffset(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale, self.offset = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


@final
class _ResidualBlock(nn.Module):
    def __init__(self, before: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, 32, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1:
            self.shortcut.append(nn.Conv2d(before, 32, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.shortcut(x))
