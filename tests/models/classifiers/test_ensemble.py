from __future__ import annotations

import pytest
import torch
from helpers.toy_networks import classifier, preprocessor, toy_images

import forefend as ff
from forefend.checks import InputError
from forefend.models.classifiers import Ensemble


def test_ensemble_has_the_mean_probability_of_its_networks() -> None:
    x, _, _ = toy_images(6).batch(torch.arange(6))
    networks = [classifier(seed) for seed in (1, 2, 3)]
    expected = torch.stack([network(x).softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(Ensemble(networks)(x).softmax(1), expected)
    torch.testing.assert_close(Ensemble(networks[:1])(x), networks[0](x).log_softmax(1))


def test_defended_ensemble_is_evaluated() -> None:
    defense = ff.Defense(preprocessor().eval(), ff.DefenseCard("", {}, "Linf:0.1"))
    model = ff.Defended(defense, Ensemble([classifier(1), classifier(2)]))
    results = ff.evaluate(model, toy_images(8), "quick", "Linf:0.1", allow_weak=True)
    assert [result.attack for result in results] == ["none", "FGSM", "PGD-20", "PGD-20 margin", "worst"]


def test_ensemble_of_nothing_raises() -> None:
    for wrong in ([], ["cnn"]):
        with pytest.raises(InputError, match="one or more torch modules"):
            Ensemble(wrong)  # type: ignore[arg-type]
