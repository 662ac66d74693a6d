"""The MNIST network of fast adversarial training and of the convex outer bound."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit, check_side


@final
class FastAt(nn.Module):
    """Two padded 4x4 convolutions of stride 2, then two linear layers.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, at least 4, which the first linear layer follows.

    Raises:
        InputError: images too small for the convolutions.

    Source: Wong et al., arXiv 2001.03994; Wong and Kolter, arXiv 1711.00851.
    """

    taps = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="conv2")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        side = check_side(size // 4, size, least=4)
        self.conv1 = nn.Conv2d(channels, 16, 4, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, 4, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.fc1 = nn.Linear(32 * side * side, 100)
        self.fc2 = nn.Linear(100, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits
