"""The layers of a classifier whose features the papers read, by role, so that recipes work for every architecture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from forefend.checks import InputError


@dataclass(frozen=True)
class FeatureLayers:
    """The dotted names of the modules whose outputs have a role; a classifier holds its own as `feature_layers`.

    Each module runs once in a forward pass and returns `(B, C, H, W)`, or `(B, F)` in a fully connected network.

    Args:
        stages: the ends of the stages, from the image up: the last features of each resolution. Four in the ImageNet
            shapes of ResNet, three in those for CIFAR.
        features: the last feature map before the pooling or the linear layers.
        third: the last convolution of the third stage, before BatchNorm and ReLU (of the last stage where there are
            fewer; the last hidden linear layer in a fully connected network).

    Source: stages as in Norouzzadeh et al., ICML 2021 workshop (Robustifier), features as in Liao et al., arXiv
    1712.02976 (FGD), third as in Zhou et al., arXiv 2106.05453 (JATP).
    """

    stages: tuple[str, ...]
    features: str
    third: str

    def inside(self, prefix: str) -> FeatureLayers:
        """Return the names for a module that holds the network as `prefix`."""
        stages = tuple(f"{prefix}.{name}" for name in self.stages)
        return FeatureLayers(stages, f"{prefix}.{self.features}", f"{prefix}.{self.third}")


def feature_layers_of(classifier: nn.Module) -> FeatureLayers:
    """Return the feature layers of a classifier.

    Raises:
        InputError: the classifier does not name them.
    """
    layers = getattr(classifier, "feature_layers", None)
    if not isinstance(layers, FeatureLayers):
        raise InputError(
            f"The classifier {type(classifier).__name__} does not name its feature layers: set "
            "classifier.feature_layers = forefend.classifiers.FeatureLayers(stages=..., features=..., third=...)."
        )
    return layers
