"""Classifiers of the papers and of published weights: networks from images to logits.

Only Madry et al.'s CIFAR network normalizes its images; `Normalized` wraps a network with its mean and std. Every
constructor takes `channels`, `classes` and `size` and keeps its arguments in `settings`, so that
`build(name, **network.settings)` rebuilds the network. `network.feature_layers` names the layers that recipes read.

AAA's classifiers: A madry-mnist, B aaa-b, C aaa-c (mlp), D madry-cifar, E vgg19, F aaa-f.
"""

from __future__ import annotations

from forefend.models.classifiers.architectures import ARCHITECTURES, build
from forefend.models.classifiers.black_box import BlackBox, http_classifier, onnx_classifier, process_classifier
from forefend.models.classifiers.ensemble import Ensemble
from forefend.models.classifiers.feature_layers import FeatureLayers, feature_layers_of
from forefend.models.classifiers.loading import load
from forefend.models.classifiers.model_card import NamedClassifier
from forefend.models.classifiers.normalized import Normalized

__all__ = [
    "ARCHITECTURES",
    "BlackBox",
    "Ensemble",
    "FeatureLayers",
    "NamedClassifier",
    "Normalized",
    "build",
    "feature_layers_of",
    "http_classifier",
    "load",
    "onnx_classifier",
    "process_classifier",
]
