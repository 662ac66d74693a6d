"""Feature layers that are found in networks of other libraries, compared with those known from their papers."""

from __future__ import annotations

import pytest
import torch
from helpers.vision_libraries import vision_library

from forefend.checks import InputError
from forefend.models.classifiers import FeatureLayers, build
from forefend.models.classifiers.feature_search import find_feature_layers

timm, models = vision_library("timm"), vision_library("torchvision.models")

KNOWN = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "convnext_tiny": ("features.1", "features.3", "features.5", "features.7"),
    "mobilenet_v3_small": ("features.1", "features.3", "features.8", "features.12"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_stages_of_torchvision_end_where_the_resolution_does(name: str) -> None:
    network = models.get_model(name, num_classes=10)
    found = find_feature_layers(network.eval(), torch.zeros(1, 3, 64, 64))
    assert found.stages == KNOWN[name]


def test_layers_of_a_basic_resnet_are_those_of_the_papers() -> None:
    network = models.resnet18(num_classes=10).eval()
    found = find_feature_layers(network, torch.zeros(1, 3, 64, 64))
    assert found == FeatureLayers(("layer1", "layer2", "layer3", "layer4"), "layer4", "layer3.1.conv2")


def test_our_own_resnet_gives_the_layers_that_it_names() -> None:
    network = build("resnet18", channels=3, classes=10, size=32).eval()
    assert find_feature_layers(network, torch.zeros(1, 3, 32, 32)) == network.feature_layers


def test_blocks_of_a_transformer_are_divided_evenly() -> None:
    network = timm.create_model("test_vit", num_classes=10, img_size=32).eval()
    found = find_feature_layers(network, torch.zeros(1, 3, 32, 32))
    assert found.stages == ("blocks.0", "blocks.2", "blocks.3", "blocks.5")
    assert (found.features, found.third) == ("blocks.5", "blocks.3.mlp.fc2")


def test_blocks_of_torchvision_transformer_are_its_layers() -> None:
    network = models.VisionTransformer(32, 8, 4, 2, 16, 32, num_classes=10).eval()
    found = find_feature_layers(network, torch.zeros(1, 3, 32, 32))
    assert found.stages == tuple(f"encoder.layers.encoder_layer_{number}" for number in range(4))


def test_network_without_features_is_refused() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4)).eval()
    with pytest.raises(InputError, match="has no feature layers that forefend can find"):
        find_feature_layers(network, torch.zeros(1, 3, 4, 4))
