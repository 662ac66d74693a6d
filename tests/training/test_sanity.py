from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, discriminator, preprocessor, toy_images
from torch import nn

import forefend as ff
from forefend.checks import InputError
from forefend.models.fingerprint import state_digest
from forefend.recipes import AAA, JATP, NRP, RTFE, Adversarial, DenoisedSmoothing, Natural, Robustifier
from forefend.recipes.base import Recipe
from forefend.threat_models.lp import Linf

SHORT: dict[str, Any] = {"epochs": 1, "steps": 1, "batch_size": 16}


def rtfe(network: nn.Module, *guides: nn.Module, run: Path | None = None, **settings: Any) -> nn.Module:
    networks = ff.Networks(preprocessor=network, guides=list(guides) or [classifier()])
    return ff.fit(RTFE(**SHORT | settings), toy_images(16), networks, run=run)


def test_fit_within_no_grad_gives_same_weights() -> None:
    outside = rtfe(preprocessor())
    with torch.no_grad():
        within = rtfe(preprocessor())
        assert not torch.is_grad_enabled()
    assert state_digest(outside) == state_digest(within)


def test_fit_within_inference_mode_gives_same_weights() -> None:
    outside, network, guide = rtfe(preprocessor()), preprocessor(), classifier()
    with torch.inference_mode():
        within = rtfe(network, guide)
    assert state_digest(outside) == state_digest(within)


def test_fit_of_network_made_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        network = preprocessor()
    with pytest.raises(InputError, match="made inside torch"):
        rtfe(network)


def test_fit_of_frozen_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"preprocessor are frozen: call requires_grad_\(True\)"):
        rtfe(preprocessor().requires_grad_(False))


def test_fit_of_partly_frozen_network_trains_the_rest() -> None:
    network = classifier()
    first, *others = network.parameters()
    first.requires_grad_(False)
    before, digest = first.clone(), state_digest(network)
    ff.fit(Natural(epochs=1, batch_size=16), toy_images(16), ff.Networks(classifier=network))
    assert torch.equal(first, before)
    assert others
    assert state_digest(network) != digest


def test_fit_of_network_in_a_guide_is_refused(tmp_path: Path) -> None:
    network = preprocessor()
    before = state_digest(network)
    with pytest.raises(InputError, match="preprocessor shares weights with a guide"):
        rtfe(network, nn.Sequential(network, classifier()), run=tmp_path / "run")
    assert state_digest(network) == before
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize("recipe", [Natural(epochs=1, batch_size=16, lr=1e30), Adversarial(**SHORT, lr=1e30)])
def test_fit_with_huge_learning_rate_saves_nothing(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lower lr"):
        ff.fit(recipe, toy_images(16), ff.Networks(classifier=classifier()), run=tmp_path / "run")
    assert not [path for path in (tmp_path / "run").rglob("*.*") if path.suffix in (".pt", ".safetensors")]


def test_attack_on_a_preprocessor_that_training_destroyed_says_so() -> None:
    """The second batch is attacked through weights that the first step made infinite."""
    recipe = RTFE(Linf(0.1), steps=1, epochs=1, batch_size=8, lr=1e38)
    with pytest.raises(InputError, match=r"after step 1.*lower lr"):
        ff.fit(recipe, toy_images(16), ff.Networks(preprocessor(), [classifier()]))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (RTFE(huber="mse"), "huber is 'mse', expected a function such as forefend.losses.huber_mean"),
        (RTFE(policy="every"), "policy is 'every', expected a function"),
        (RTFE(lr="0.1"), "lr is '0.1', expected a number"),
        (RTFE(lr=None), "lr is None, expected a number"),
        (RTFE(milestones=0.5), "milestones is 0.5, expected several values"),
        (AAA(ce_weight=-1), "ce_weight is -1, expected at least 0"),
        (AAA(ce_weight=0, mse_weight=0), "ce_weight, mse_weight are all 0"),
        (JATP(adversarial_weight=0, alpha=0, beta=0), "all 0"),
        (NRP(feature_weight=0, pixel_weight=0, discriminator_weight=0), "all 0"),
        (Robustifier(alpha=0, beta=0, gamma=0), "all 0"),
        (DenoisedSmoothing(sigma=-0.25), "sigma is -0.25, expected at least 0"),
    ],
)  # type: ignore[arg-type]
def test_recipe_check_of_wrong_field_raises(recipe: Recipe, words: str) -> None:
    with pytest.raises(InputError, match=words):
        recipe.check()


def test_recipe_accepts_threat_model_by_name() -> None:
    assert RTFE(threat="L2:0.5").threat == ff.L2(0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected l∞"):
        NRP(threat="L2:0.5")  # type: ignore[arg-type]


def test_fit_with_a_network_that_the_recipe_does_not_use_is_refused() -> None:
    networks = ff.Networks(preprocessor(), [classifier()], discriminator=discriminator())
    recipe = RTFE(Linf(0.1), steps=1, epochs=1)
    with pytest.raises(ff.InputError, match="RTFE has no role for the discriminator given, only for guides and prep"):
        ff.fit(recipe, toy_images(16), networks)
    with pytest.raises(ff.InputError, match="Natural has no role for the guides given, only for classifier: remove it"):
        ff.fit(Natural(epochs=1), toy_images(16), ff.Networks(guides=[classifier()], classifier=classifier()))
