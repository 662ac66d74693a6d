"""Defenses that only look robust: each masks its gradient in another way."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn


class Quantize(nn.Module):
    """Rounds each pixel to a few levels: the gradient is zero."""

    def __init__(self, levels: int = 8) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return (x * (self.levels - 1)).round() / (self.levels - 1)


class Saturate(nn.Module):
    """Steep contrast with a clamp: the gradient is zero for almost every pixel."""

    def __init__(self, slope: float = 50.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.47) * self.slope + 0.5).clamp(0, 1)


class JPEG(nn.Module):
    """Writes each image as a JPEG file and reads it again: there is no gradient."""

    def __init__(self, quality: int = 75) -> None:
        super().__init__()
        self.quality = quality

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self._stored(image) for image in x.detach()])

    def _stored(self, image: Tensor) -> Tensor:
        file = io.BytesIO()
        pixels = (image[0].cpu() * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(file, "JPEG", quality=self.quality)
        return torch.from_numpy(np.array(Image.open(file))).to(image)[None] / 255


class CarelessJPEG(JPEG):
    """Calls `.numpy()` on its input, which raises if a gradient is required."""

    def forward(self, x: Tensor) -> Tensor:
        x.numpy()
        return super().forward(x)


class FlatJPEG(JPEG):
    """JPEG with a gradient of zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * x


class RandomResize(nn.Module):
    """Shrinks all images randomly and pads them at a random position."""

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        new = side - int(torch.randint(0, 2, ()))
        top, left = (int(torch.randint(0, side - new + 1, ())) for _ in range(2))
        small = F.interpolate(x, size=(new, new), mode="bilinear", align_corners=False)
        return F.pad(small, (left, side - new - left, top, side - new - top))


class _Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class FlipGradient(nn.Module):
    """Returns its input, with a gradient of the wrong sign."""

    def forward(self, x: Tensor) -> Tensor:
        flipped: Tensor = _Flip.apply(x)
        return flipped


class Sharpened(nn.Module):
    """A classifier with a tiny temperature, so that its softmax is constant in float32."""

    def __init__(self, classifier: nn.Module, temperature: float = 1e-4) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, temperature

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x) / self.temperature
        return logits


class Probabilities(nn.Module):
    """A classifier that returns probabilities."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x).softmax(1)


class Purify(nn.Module):
    """Smooths the image by gradient descent in its forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            rough = (z[..., 1:] - z[..., :-1]).square().sum()
            (gradient,) = torch.autograd.grad(rough, z)
        return (x - 0.05 * gradient).clamp(0, 1)


class Shatter(nn.Module):
    """Adds an invisible ripple with a gradient much larger than that of the classifier."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 2e-4 * torch.sin(x * 1e5)
