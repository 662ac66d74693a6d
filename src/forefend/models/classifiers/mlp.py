"""A fully connected network: a guide, or an unseen classifier, that shares no convolution with any other."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.classifiers.input_size import check_images_fit


@final
class Mlp(nn.Module):
    """Two hidden layers with ReLU; network C of the paper, whose hidden widths it does not state.

    Args:
        channels: of the images.
        classes: how many logits.
        size: height and width of the images, which the first layer follows.
        width: of both hidden layers.

    Source: Vaishnavi et al., arXiv 1909.05921 (AAA).
    """

    taps = FeatureLayers(stages=("relu1", "relu2"), features="relu2", third="fc2")

    def __init__(self, channels: int = 1, classes: int = 10, size: int = 28, *, width: int = 200):
        super().__init__()
        self.settings = {"channels": channels, "classes": classes, "size": size, "width": width}
        self.fc1 = nn.Linear(channels * size * size, width)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(width, width)
        self.relu2 = nn.ReLU()
        self.fc3 = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)` of normalized images `(B, C, size, size)`."""
        check_images_fit(x, self.settings["channels"], self.settings["size"])
        x = self.relu1(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc3(self.relu2(self.fc2(x)))
        return logits
