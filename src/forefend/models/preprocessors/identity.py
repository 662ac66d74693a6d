"""The empty preprocessor: what an undefended classifier has in front of it."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn


@final
class Identity(nn.Module):
    """Returns the images as they are.

    Args:
        channels: of the images; kept in `settings`, changes nothing.
    """

    def __init__(self, channels: int = 3):
        super().__init__()
        self.settings = {"channels": channels}

    def forward(self, x: Tensor) -> Tensor:
        """`x` itself."""
        return x
