"""The larger of the two plain CIFAR-10 networks that the Marabou verifier is tested on."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit, check_side


@final
class Marabou(nn.Module):
    """Two unpadded 4x4 convolutions of stride 2, then three linear layers.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, at least 10, which the first linear layer follows.

    Raises:
        InputError: images too small for the convolutions.

    Source: Katz et al., "The Marabou framework for verification and analysis of deep neural networks", CAV 2019.
    """

    taps = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="conv2")

    def __init__(self, channels: int = 3, classes: int = 10, size: int = 32):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        side = check_side((size // 2 - 1) // 2 - 1, size, least=10)
        self.conv1 = nn.Conv2d(channels, 32, 4, stride=2)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.relu2 = nn.ReLU()
        self.fc1 = nn.Linear(64 * side * side, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits
