"""The papers' classifiers, and those whose weights others publish: networks from images to logits.

No network here normalizes, but for Madry et al.'s on CIFAR: `Normalized` wraps one with its mean and std. Every
constructor takes `channels`, `classes` and `size`, and keeps all it was given in `settings`, as JSON values:
`build(name, **net.settings)` makes its equal. Every network says in `taps` where its features are read.

AAA's classifiers by their letters: A madry-mnist, B aaa-b, C aaa-c (mlp), D madry-cifar, E vgg19, F aaa-f.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from forefend.checks import InputError, choose
from forefend.models.classifiers.aaa import AaaCnn
from forefend.models.classifiers.cnn import Cnn
from forefend.models.classifiers.densenet import DenseNet
from forefend.models.classifiers.fast_at import FastAt
from forefend.models.classifiers.feature_layers import FeatureLayers, feature_layers_of
from forefend.models.classifiers.lenet5 import LeNet5
from forefend.models.classifiers.madry_cifar import MadryCifar
from forefend.models.classifiers.madry_mnist import MadryMnist
from forefend.models.classifiers.marabou import Marabou
from forefend.models.classifiers.mlp import Mlp
from forefend.models.classifiers.mobilenetv2 import MobileNetV2
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.resnet import ResNet
from forefend.models.classifiers.resnet4b import ResNet4b
from forefend.models.classifiers.small_cnn import SmallCnn
from forefend.models.classifiers.squeezenet import SqueezeNet
from forefend.models.classifiers.vgg import Vgg
from forefend.models.classifiers.zheng import Zheng

__all__ = ["ARCHITECTURES", "FeatureLayers", "Normalized", "build", "feature_layers_of"]
_IMAGENET_WIDTHS = (64, 128, 256, 512)
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "aaa-b": partial(AaaCnn, channels=1, size=28, widths=(32,), depth=1, kernel=5, hidden=128),
    "aaa-c": Mlp,
    "aaa-f": AaaCnn,
    "cnn": Cnn,
    "densenet121": DenseNet,
    "densenet121-narrow": partial(DenseNet, growth=12),
    "fastat": FastAt,
    "lenet5": LeNet5,
    "madry-cifar": MadryCifar,
    "madry-cifar-wide": partial(MadryCifar, widths=(16, 160, 320, 640)),
    "madry-mnist": MadryMnist,
    "marabou": Marabou,
    "mlp": Mlp,
    "mobilenetv2": MobileNetV2,
    "resnet4b": ResNet4b,
    "resnet18": partial(ResNet, widths=_IMAGENET_WIDTHS, blocks=(2, 2, 2, 2), projection=True),
    "resnet20": partial(ResNet, blocks=(3, 3, 3)),
    "resnet32": partial(ResNet, blocks=(5, 5, 5)),
    "resnet34": partial(ResNet, widths=_IMAGENET_WIDTHS, blocks=(3, 4, 6, 3), projection=True),
    "resnet44": partial(ResNet, blocks=(7, 7, 7)),
    "resnet50": partial(ResNet, widths=_IMAGENET_WIDTHS, blocks=(3, 4, 6, 3), bottleneck=True, projection=True),
    "resnet56": partial(ResNet, blocks=(9, 9, 9)),
    "smallcnn": SmallCnn,
    "squeezenet": SqueezeNet,
    "tinyresnet": partial(ResNet, widths=(8, 16, 32), blocks=(1, 1, 1)),
    "vgg16": Vgg,
    "vgg19": partial(Vgg, depths=(2, 2, 4, 4, 4)),
    "zheng": Zheng,
}


def build(name: str, *, channels: int, classes: int, size: int, **more: Any) -> nn.Module:
    """A new network by the name of its architecture, its weights drawn from torch's generator.

    Args:
        name: a key of `ARCHITECTURES`.
        channels: of the images, from 1.
        classes: how many logits, from 2.
        size: height and width of the images in pixels, from 1.
        more: what else the architecture's constructor takes.

    Raises:
        InputError: an unknown name or setting, a number out of range, or images too small for the architecture.
    """
    architecture = choose(name, ARCHITECTURES, "classifier architecture")
    for what, number, least in (("channels", channels, 1), ("classes", classes, 2), ("size", size, 1)):
        if not isinstance(number, int) or number < least:
            raise InputError(f"A classifier's {what} is {number!r}, expected a whole number, at least {least}.")
    try:
        return architecture(channels=channels, classes=classes, size=size, **more)
    except TypeError as error:
        given = ", ".join(more)
        raise InputError(f"The architecture {name!r} does not take the settings {given}: {error}.") from error
