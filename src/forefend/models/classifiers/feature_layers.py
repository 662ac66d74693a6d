"""Taps: where in a classifier the papers read features, by role, so that a recipe need not know the architecture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from forefend.checks import InputError


@dataclass(frozen=True)
class FeatureLayers:
    """The dotted names of the modules whose outputs play each role; every classifier here keeps its own as `taps`.

    Each named module runs exactly once in a forward pass and puts out a tensor `(B, C, H, W)`, or `(B, F)` in a fully
    connected network. `Guide.read` takes the names as they stand.

    Args:
        stages: the ends of the stages, from the image up: the last features at each resolution that is computed at
            length, before whatever halves it. Four in the ImageNet shapes of ResNet, three in CIFAR's.
        features: the last feature map before the pooling or the linear layers that make logits of it.
        third: the last convolution of the third stage, before BatchNorm and ReLU (of the last stage where there are
            fewer; the last hidden linear layer in a fully connected network).

    Source: Norouzzadeh et al., ICML 2021 workshop (Robustifier), read the stages, Liao et al., arXiv 1712.02976 (FGD),
    the last features, and Zhou et al., arXiv 2106.05453 (JATP), the third.
    """

    stages: tuple[str, ...]
    features: str
    third: str

    def inside(self, prefix: str) -> FeatureLayers:
        """The same taps as seen from around the network, where it is called `prefix`."""
        stages = tuple(f"{prefix}.{name}" for name in self.stages)
        return FeatureLayers(stages, f"{prefix}.{self.features}", f"{prefix}.{self.third}")


def feature_layers_of(classifier: nn.Module) -> FeatureLayers:
    """Where a classifier's features are read: its `taps`.

    Args:
        classifier: from this shelf, or another that was given `taps` by hand.

    Raises:
        InputError: a classifier that says nothing of its taps.
    """
    taps = getattr(classifier, "taps", None)
    if not isinstance(taps, FeatureLayers):
        raise InputError(
            f"The classifier {type(classifier).__name__} does not say where its features are read, and a recipe that "
            "reads features needs it: set classifier.taps = forefend.classifiers.Taps(stages=..., features=..., "
            "third=...) with the names of its modules."
        )
    return taps
