from __future__ import annotations

import json
from dataclasses import fields
from typing import get_type_hints

import pytest

from forefend.checks import InputError
from forefend.losses import huber_vector
from forefend.recipes import HGD, MMA, RECIPES, RTFE, Natural, Transfer
from forefend.recipes.base import Recipe
from forefend.recipes.ensemble import in_turn
from forefend.recipes.hyperparameters import CHOICES, build, hyperparameters_of
from forefend.threat_models.lp import L2

every_recipe = pytest.mark.parametrize("recipe", [pytest.param(recipe, id=name) for name, recipe in RECIPES.items()])


@every_recipe
def test_hyperparameters_of_has_every_field(recipe: type[Recipe]) -> None:
    settings = hyperparameters_of(recipe)
    assert [s.name for s in settings] == [f.name for f in fields(recipe)]
    for s in settings:
        assert len(s.meaning) > 10, s.name
        assert "\n" not in s.meaning
        assert json.loads(json.dumps(s.default)) == s.default
        assert s.kind in (bool, int, float, str, list[float], list[str])


@every_recipe
def test_build_from_settings_returns_an_equal_recipe(recipe: type[Recipe]) -> None:
    plain = {s.name: s.default for s in hyperparameters_of(recipe)}
    assert recipe().settings().items() <= plain.items()  # extensions are left out at their default
    assert build(recipe, plain) == recipe() == build(recipe, {})
    assert build(recipe, json.loads(json.dumps(plain))) == recipe()


@every_recipe
def test_purpose_is_one_line(recipe: type[Recipe]) -> None:
    assert 20 < len(recipe.purpose()) < 160
    assert "\n" not in recipe.purpose()


def test_build_converts_plain_values() -> None:
    values = {
        "threat": "L2:0.5",
        "huber": "huber_vector",
        "policy": "in_turn",
        "milestones": [0.25],
        "epochs": 3,
        "lr": 0.5,
    }
    recipe = build(RTFE, values)
    assert recipe == RTFE(threat=L2(0.5), huber=huber_vector, policy=in_turn, milestones=(0.25,), epochs=3, lr=0.5)
    assert recipe.settings() == RTFE().settings() | values
    assert build(Natural, {"epochs": 2, "unheard": 1}) == Natural(epochs=2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"huber": "huber_men"}, "no loss of two outputs called 'huber_men': did you mean 'huber_mean'?"),
        ({"huber": "zzz"}, "no loss of two outputs called 'zzz': choose one of euclidean, huber_mean"),
        ({"policy": "evry"}, "no guide policy called 'evry': did you mean 'every'?"),
        ({"threat": "Linf"}, "'Linf' is not a threat model"),
        ({"threat": "Linff:0.1"}, "no norm called 'Linff'"),
    ],
)
def test_build_with_an_unknown_name_raises(values: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as error:
        build(RTFE, values)
    assert words in str(error.value)


@every_recipe
def test_build_accepts_every_choice(recipe: type[Recipe]) -> None:
    hints = get_type_hints(recipe)
    for field in fields(recipe):
        for kind, _, functions in CHOICES:
            offered = hints[field.name] == kind and getattr(recipe(), field.name) in functions
            for function in functions if offered else ():
                changed = recipe(**{field.name: function})
                assert changed.settings().get(field.name, function.__name__) == function.__name__
                assert build(recipe, changed.settings()) == changed


@every_recipe
def test_choices_hold_every_default_function(recipe: type[Recipe]) -> None:
    hints = get_type_hints(recipe)
    for field in fields(recipe):
        value = getattr(recipe(), field.name)
        if callable(value):
            assert any(value in functions for kind, _, functions in CHOICES if hints[field.name] == kind), field.name


@pytest.mark.parametrize(
    ("recipe", "values", "words"),
    [
        (HGD, {"guidance": "features"}, "no guidance or objective called 'features': did you mean 'feature'?"),
        (HGD, {"sees": "nothing"}, "no knowledge called 'nothing': choose one of full, oblivious"),
        (Transfer, {"layers": "all"}, "no layers called 'all': choose one of everything, head, last_stage"),
        (Transfer, {"labels": "true"}, "no labels called 'true': did you mean 'true_labels'?"),
        (MMA, {"threat": "L2:0.5"}, "The threat model of MMA is L2:0.5, expected l∞"),
    ],
)
def test_build_with_an_unsuitable_value_raises(recipe: type[Recipe], values: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as error:
        build(recipe, values)
    assert words in str(error.value)


def test_choices_have_unique_names() -> None:
    for _, _, functions in CHOICES:
        names = [function.__name__ for function in functions]
        assert len(names) == len(set(names))
