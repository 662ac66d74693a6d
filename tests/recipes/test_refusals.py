"""Networks that do not fit are refused in one sentence; the roles of a recipe are those that fit."""

from __future__ import annotations

import pytest
from helpers.toy_networks import classifier, toy_cast, toy_images, train
from torch import nn

from forefend.checks import InputError
from forefend.losses import ce, kl, margin, mse
from forefend.models.guide import Guide
from forefend.recipes import HGD, JAT, JATP, NRP, RECIPES, RTFE, JATPPrime, Robustifier
from forefend.recipes.base import Networks, Recipe
from forefend.threat_models.lp import L2, Linf

ROLES = [(name, role) for name, recipe in RECIPES.items() for role in recipe.roles]
SMALL = {"threat": Linf(0.1), "steps": 1, "epochs": 1}
FEATURES: list[Recipe] = [
    JATP(**SMALL),
    JATPPrime(**SMALL),
    JAT(**SMALL),
    NRP(**SMALL),
    HGD(**SMALL),
    Robustifier(**SMALL, hold_out=0.0),
]


def cast_of(roles: tuple[str, ...]) -> Networks:
    """The networks of a recipe's roles."""
    whole, nets = toy_cast(guides=1), dict[str, object]()
    for role in roles:
        nets["classifier" if role == "source" else role] = getattr(whole, "classifier" if role == "source" else role)
    return Networks(**nets)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_configure_optimizers_with_all_roles_succeeds(name: str) -> None:
    recipe = RECIPES[name]()
    assert recipe.configure_optimizers(cast_of(RECIPES[name].roles))


@pytest.mark.parametrize(("name", "role"), ROLES)
def test_configure_optimizers_without_a_role_raises(name: str, role: str) -> None:
    others = tuple(other for other in RECIPES[name].roles if other != role)
    with pytest.raises(InputError) as error:
        RECIPES[name]().configure_optimizers(cast_of(others))
    assert str(error.value).count(".") == 1
    assert "given" in str(error.value)


def without_taps() -> nn.Module:
    network = classifier()
    del network.feature_layers
    return network


@pytest.mark.parametrize("recipe", FEATURES, ids=lambda r: type(r).__name__)
def test_fit_without_feature_layers_raises(recipe: Recipe) -> None:
    networks = toy_cast(guides=1)
    networks = Networks(networks.preprocessor, [Guide(without_taps())], without_taps(), networks.discriminator)
    with pytest.raises(InputError, match=r"Sequential .* classifier\.feature_layers"):
        train(recipe, toy_images(8), networks)


@pytest.mark.parametrize("recipe", [JATP, JATPPrime, JAT, NRP])
def test_fit_with_unknown_tap_raises(recipe: type[Recipe]) -> None:
    with pytest.raises(InputError, match="There is no tap in this classifier called 'layer3': choose one of 0, 1, 2"):
        train(recipe(**SMALL, tap="layer3"), toy_images(8), toy_cast(guides=1))


@pytest.mark.parametrize("name", [n for n, r in RECIPES.items() if hasattr(r, "threat") and n not in ("mma", "nrp")])
def test_recipe_accepts_l2(name: str) -> None:
    assert RECIPES[name](threat=L2(0.5)).threat == L2(0.5)  # type: ignore[call-arg, attr-defined]


def test_tap_accepts_any_module() -> None:
    networks = train(JATP(**SMALL, tap="4"), toy_images(8), toy_cast())
    assert all(t.isfinite().all() for t in networks.preprocessor.state_dict().values())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (RTFE(huber=ce), "huber is ce, expected a loss of two outputs"),
        (RTFE(huber=margin), "huber is margin"),
        (JATP(pixel=ce), "pixel is ce"),
        (JATP(adversarial=mse), "adversarial is mse, expected a loss of logits and labels"),
        (RTFE(huber="huber_mean"), "huber is 'huber_mean', expected a function"),  # type: ignore[arg-type]
    ],
)
def test_loss_of_another_kind_is_refused_before_training(recipe: Recipe, words: str) -> None:
    """Cross-entropy accepts logits in the place of labels, and would take them for probabilities."""
    with pytest.raises(InputError, match=words):
        recipe.check()


@pytest.mark.parametrize("recipe", [RTFE(huber=kl), RTFE(huber=lambda a, b: (a - b).abs().sum(1)), JATP(pixel=mse)])
def test_loss_of_the_right_kind_or_of_the_user_is_accepted(recipe: Recipe) -> None:
    recipe.check()
