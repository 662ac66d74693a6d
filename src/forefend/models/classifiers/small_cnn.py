"""The MNIST network of TRADES, which secml-torch trains as well."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit, check_side


@final
class SmallCnn(nn.Module):
    """Four unpadded 3x3 convolutions with a max-pool after each pair, then three linear layers.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, at least 16, which the first linear layer follows.

    Raises:
        InputError: images too small for the convolutions.

    Source: Zhang et al., arXiv 1901.08573 (after Carlini and Wagner, arXiv 1608.04644).
    """

    taps = FeatureLayers(stages=("relu2", "relu4"), features="relu4", third="conv4")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        side = check_side(((size - 4) // 2 - 4) // 2, size, least=16)
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 32, 3)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(32, 64, 3)
        self.conv4 = nn.Conv2d(64, 64, 3)
        self.relu4 = nn.ReLU()
        self.fc1 = nn.Linear(64 * side * side, 200)
        self.fc2 = nn.Linear(200, 200)
        self.fc3 = nn.Linear(200, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = F.max_pool2d(self.relu2(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.max_pool2d(self.relu4(self.conv4(F.relu(self.conv3(x)))), 2)
        x = F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))
        logits: Tensor = self.fc3(x)
        return logits
