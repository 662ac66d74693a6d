"""Every architecture of the shelf in a form that a test can train: the same code, fewer channels and layers."""

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
# In their full form these are too big to fill, write and read in a test.
BIG = sorted(set(NARROW) - {"densenet121-narrow", "madry-cifar", "resnet44", "resnet56"})


def narrow(name: str, *, channels: int = 3, classes: int = 4, size: int = 8) -> nn.Module:
    """A new network of this architecture, narrow where it is otherwise large."""
    assert name in ARCHITECTURES
    return build(name, channels=channels, classes=classes, size=size, **NARROW.get(name, {}))
