"""Every architecture in a narrow form that a test can train."""

from __future__ import annotations

from torch import nn

from forefend.models.classifiers import ARCHITECTURES, build

_RESNET = {"widths": [8, 12, 16, 20]}
NARROW: dict[str, dict[str, object]] = {
    "densenet121": {"growth": 4, "blocks": [2, 3, 2, 2]},
    "densenet121-narrow": {"growth": 3, "blocks": [2, 2, 3, 2]},
    "madry-cifar": {"widths": [8, 8, 12, 16], "units": 2},
    "madry-cifar-wide": {"widths": [6, 10, 12, 16], "units": 2},
    "resnet18": _RESNET,
    "resnet34": _RESNET | {"blocks": [2, 2, 3, 2]},
    "resnet44": {"blocks": [2, 2, 2]},
    "resnet50": _RESNET | {"blocks": [2, 2, 2, 2]},
    "resnet56": {"blocks": [2, 3, 2]},
    "vgg16": {"widths": [8, 12, 16, 20, 24]},
    "vgg19": {"widths": [6, 12, 16, 20, 24]},
}
# Too large in their full form for tests that write and read weights.
BIG = sorted(set(NARROW) - {"densenet121-narrow", "madry-cifar", "resnet44", "resnet56"})


def narrow(name: str, *, channels: int = 3, classes: int = 4, size: int = 8) -> nn.Module:
    """Return a new classifier of this architecture with few channels."""
    assert name in ARCHITECTURES
    return build(name, channels=channels, classes=classes, size=size, **NARROW.get(name, {}))
