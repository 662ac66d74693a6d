"""The architectures of the papers and of published weights, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from forefend.checks import InputError, choose
from forefend.models.classifiers.aaa import AaaCnn
from forefend.models.classifiers.densenet import DenseNet
from forefend.models.classifiers.madry_cifar import MadryCifar
from forefend.models.classifiers.mobilenetv2 import MobileNetV2
from forefend.models.classifiers.plain_networks import (
    cnn,
    fast_at,
    lenet5,
    madry_mnist,
    marabou,
    mlp,
    resnet4b,
    small_cnn,
    zheng,
)
from forefend.models.classifiers.resnet import ResNet
from forefend.models.classifiers.squeezenet import SqueezeNet
from forefend.models.classifiers.vgg import Vgg

_IMAGENET_WIDTHS = (64, 128, 256, 512)
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "aaa-b": partial(AaaCnn, channels=1, size=28, widths=(32,), depth=1, kernel=5, hidden=128),
    "aaa-c": mlp,
    "aaa-f": AaaCnn,
    "cnn": cnn,
    "densenet121": DenseNet,
    "densenet121-narrow": partial(DenseNet, growth=12),
    "fastat": fast_at,
    "lenet5": lenet5,
    "madry-cifar": MadryCifar,
    "madry-cifar-wide": partial(MadryCifar, widths=(16, 160, 320, 640)),
    "madry-mnist": madry_mnist,
    "marabou": marabou,
    "mlp": mlp,
    "mobilenetv2": MobileNetV2,
    "resnet4b": resnet4b,
    "resnet18": partial(ResNet, widths=_IMAGENET_WIDTHS, blocks=(2, 2, 2, 2), projection=True),
    "resnet20": partial(ResNet, blocks=(3, 3, 3)),
    "resnet32": partial(ResNet, blocks=(5, 5, 5)),
    "resnet34": partial(ResNet, widths=_IMAGENET_WIDTHS, blocks=(3, 4, 6, 3), projection=True),
    "resnet44": partial(ResNet, blocks=(7, 7, 7)),
    "resnet50": partial(ResNet, widths=_IMAGENET_WIDTHS, blocks=(3, 4, 6, 3), bottleneck=True, projection=True),
    "resnet56": partial(ResNet, blocks=(9, 9, 9)),
    "smallcnn": small_cnn,
    "squeezenet": SqueezeNet,
    "tinyresnet": partial(ResNet, widths=(8, 16, 32), blocks=(1, 1, 1)),
    "vgg16": Vgg,
    "vgg19": partial(Vgg, depths=(2, 2, 4, 4, 4)),
    "zheng": zheng,
}


def build(name: str, *, channels: int, classes: int, size: int, **more: Any) -> nn.Module:
    """Build a classifier by the name of its architecture, with weights drawn from torch's generator.

    Args:
        name: a key of `ARCHITECTURES`.
        channels: channels of the images, from 1.
        classes: number of logits, from 2.
        size: height and width of the images in pixels, from 1.
        more: further arguments of the architecture.

    Returns:
        A network from images `(B, channels, size, size)` to logits `(B, classes)`.

    Raises:
        InputError: an unknown name or setting, a number out of range, or images too small for the architecture.
    """
    architecture = choose(name, ARCHITECTURES, "classifier architecture")
    for what, number, least in (("channels", channels, 1), ("classes", classes, 2), ("size", size, 1)):
        if not isinstance(number, int) or number < least:
            raise InputError(f"A classifier's {what} is {number!r}, expected an integer of at least {least}.")
    try:
        return architecture(channels=channels, classes=classes, size=size, **more)
    except TypeError as error:
        given = ", ".join(more)
        raise InputError(f"The architecture {name!r} does not take the settings {given}: {error}.") from error
