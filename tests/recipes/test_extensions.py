"""What the papers mention beyond their main method: other losses, starts and optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.plain_recipes import steps
from helpers.toy_networks import classifier, preprocessor, toy_images
from torch import Tensor

from forefend.attacks.pgd import from_x, random_start, small_noise
from forefend.checks import InputError
from forefend.losses import mse, sse
from forefend.models import preprocessors
from forefend.models.guide import Guide
from forefend.recipes import JATP, MART, RTFE, TRADES, Adversarial
from forefend.recipes.base import Batch, Networks, Recipe, adam
from forefend.recipes.hyperparameters import build
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

SHORT: dict[str, Any] = {"threat": Linf(0.1), "steps": 2}


def loss_of(recipe: Recipe) -> Tensor:
    x, y, index = toy_images(12).batch(torch.arange(12))
    networks = Networks(preprocessor(3), [Guide(classifier(1))])
    networks.preprocessor.train()
    ((_, loss),) = steps(recipe, networks, Batch(x, y, index, 0.0, KeyedRNG(index, 0, "train")))
    return loss


def test_rtfe_loss_is_the_weighted_sum_of_its_terms() -> None:
    alone = {name: loss_of(RTFE(**SHORT, logit_weight=0.0, **{name: 1.0})) for name in ("ce_weight", "pixel_weight")}
    both = loss_of(RTFE(**SHORT, ce_weight=2.0, pixel_weight=3.0))
    expected = loss_of(RTFE(**SHORT)) + 2 * alone["ce_weight"] + 3 * alone["pixel_weight"]
    torch.testing.assert_close(both, expected)


def test_rtfe_cross_entropy_and_pixel_terms_without_attack_are_plain_means() -> None:
    x, y, _ = toy_images(12).batch(torch.arange(12))
    g, f = preprocessor(3).train(), classifier(1)
    still: dict[str, Any] = {"threat": Linf(0.0), "steps": 1, "logit_weight": 0.0}
    torch.testing.assert_close(loss_of(RTFE(**still, ce_weight=1.0)), F.cross_entropy(f(g(x)), y))
    torch.testing.assert_close(loss_of(RTFE(**still, pixel_weight=1.0)), (g(x) - x).square().mean())


def test_jatp_similarity_as_a_sum_weighs_every_feature() -> None:
    only: dict[str, Any] = SHORT | {"adversarial_weight": 0.0, "beta": 0.0}
    features = classifier(1)[0](torch.zeros(1, 1, 6, 6)).numel()  # the feature map that JATP reads
    torch.testing.assert_close(loss_of(JATP(**only, similarity=sse)), features * loss_of(JATP(**only, similarity=mse)))


@pytest.mark.parametrize("recipe", [TRADES, MART])
def test_start_of_trades_and_mart_may_be_random(recipe: type[Any]) -> None:
    assert recipe().inner_attack().start is small_noise
    assert build(recipe, {"start": "random_start"}).inner_attack().start is random_start  # type: ignore[union-attr]


def test_trades_from_clean_image_is_refused() -> None:
    with pytest.raises(InputError, match="small_noise"):
        TRADES(start=from_x).check()


def test_adversarial_training_with_adam_has_its_rate() -> None:
    recipe = build(Adversarial, {"optimizer": "adam", "lr": 1e-4})
    assert recipe == Adversarial(optimizer=adam, lr=1e-4)
    optimizer = recipe.configure_optimizers(Networks(classifier=classifier()))["classifier"].optimizer
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (1e-4, 0)


def test_settings_hold_an_extension_only_if_it_is_used() -> None:
    assert "optimizer" not in Adversarial().settings()
    assert Adversarial(optimizer=adam).settings()["optimizer"] == "adam"
    assert RTFE(ce_weight=1.0).settings().keys() - RTFE().settings().keys() == {"ce_weight"}


def test_rtfe_autoencoder_is_its_network_without_lateral_features() -> None:
    network = preprocessors.build("rtfe-autoencoder", channels=1, widths=(4, 8, 8), depths=(1, 1, 1)).eval()
    x = torch.rand(2, 1, 9, 9)
    assert network(x).shape == x.shape
    assert preprocessors.name_of(preprocessors.build("rtfe-autoencoder", channels=1)) == "rtfe-autoencoder"
    assert preprocessors.name_of(preprocessors.build("rtfe-unet", channels=1)) == "rtfe-unet"
    assert "lateral" not in preprocessors.build("rtfe-unet", channels=1).settings  # so that old cards stay equal
