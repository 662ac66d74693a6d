"""The network of Madry et al.'s MNIST challenge: network A of AAA."""

from __future__ import annotations

from typing import final

import torch.nn.functional as F
from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit


@final
class MadryMnist(nn.Module):
    """Two 5x5 convolutions, each with ReLU and a max-pool, then two linear layers.

    Weights start as a normal distribution of deviation 0.1 cut off at 0.2, and offsets at 0.1, as its authors' do.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, which the first linear layer follows; any from 1.

    Source: Madry et al., arXiv 1706.06083.
    """

    taps = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="conv2")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size}
        side = -(-size // 4)
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.relu2 = nn.ReLU()
        self.fc1 = nn.Linear(64 * side * side, 1024)
        self.fc2 = nn.Linear(1024, classes)
        for parameter in self.parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 0.1)
            else:
                nn.init.trunc_normal_(parameter, std=0.1, a=-0.2, b=0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = F.max_pool2d(self.relu1(self.conv1(x)), 2, ceil_mode=True)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2, ceil_mode=True)
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits
