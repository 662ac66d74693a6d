"""The Fashion-MNIST network of the Wasserstein and distributionally adversarial attacks."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit, check_side


@final
class Zheng(nn.Module):
    """Two 5x5 and two 3x3 convolutions, each pair with a max-pool, then two linear layers.

    The authors' BatchNorm between the linear layers never updates its statistics, so it is a learned scale and offset
    for each feature here.

    Args:
        size: height and width of the images, at least 4.

    Raises:
        InputError: images too small for the pools.

    Source: Zheng et al., arXiv 1808.05537.
    """

    feature_layers = FeatureLayers(stages=("relu2", "relu4"), features="relu4", third="conv4")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        side = check_side(size // 4, size, least=4)
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 32, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1)
        self.relu4 = nn.ReLU()
        self.fc1 = nn.Linear(64 * side * side, 1024)
        self.scale = nn.Parameter(torch.ones(1024))
        self.offset = nn.Parameter(torch.zeros(1024))
        self.fc2 = nn.Linear(1024, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = F.max_pool2d(self.relu2(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.max_pool2d(self.relu4(self.conv4(F.relu(self.conv3(x)))), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(x * self.scale + self.offset)
        return logits
