from __future__ import annotations

import torch
from helpers.toy_networks import classifier, preprocessor
from torch import nn

from forefend.evaluation.latency import as_json, latency, table
from forefend.models.defended import Defended
from forefend.models.fingerprint import state_digest
from forefend.runtime.profiling import peak_bytes

X = torch.rand(3, 1, 6, 6)


def test_peak_bytes_of_two_layers_is_both_outputs() -> None:
    x, network = torch.rand(32, 1, 28, 28), nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten())
    output = 32 * 8 * 28 * 28 * 4
    with torch.no_grad():
        assert peak_bytes(lambda: network(x)) == 2 * output
        assert peak_bytes(lambda: network[0](x).flatten(1).flatten()) == output  # views hold the same bytes
        assert peak_bytes(lambda: x.flatten(1)) == 0  # a view of what existed before


def test_a_defended_classifier_costs_its_parts() -> None:
    given = classifier()
    before = state_digest(given)
    alone, together = latency(given, X, "cnn"), latency(Defended(preprocessor(), given), X, "cnn defended")
    added = sum(parameter.numel() for parameter in preprocessor().parameters())
    assert together.parameters == alone.parameters + added
    assert together.weights > alone.weights
    assert together.memory >= alone.memory > 0
    assert all(ms > 0 for one in (alone, together) for ms in one.milliseconds.values())
    assert state_digest(given) == before
    text = table([alone, together])
    assert "cnn defended" in text
    assert "ms an image, batch 32" in text
    assert as_json([alone])["models"][0]["parameters"] == alone.parameters
