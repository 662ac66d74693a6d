from __future__ import annotations

import json
from dataclasses import fields

import pytest

from forefend.checks import InputError
from forefend.guides import in_turn
from forefend.losses import huber_vector
from forefend.recipe import Recipe
from forefend.recipes import RECIPES, RTFE, Natural
from forefend.settings import LOSSES, POLICIES, build, purpose, settings_of
from forefend.threat import L2

every_recipe = pytest.mark.parametrize("recipe", [pytest.param(recipe, id=name) for name, recipe in RECIPES.items()])


@every_recipe
def test_every_field_is_a_setting_with_a_meaning_and_a_plain_default(recipe: type[Recipe]) -> None:
    settings = settings_of(recipe)
    assert [s.name for s in settings] == [f.name for f in fields(recipe)]
    for s in settings:
        assert len(s.meaning) > 10, s.name
        assert "\n" not in s.meaning
        assert json.loads(json.dumps(s.default)) == s.default
        assert s.kind in (int, float, str, list[float])


@every_recipe
def test_plain_values_there_and_back_change_nothing(recipe: type[Recipe]) -> None:
    plain = {s.name: s.default for s in settings_of(recipe)}
    assert plain == recipe().settings()
    assert build(recipe, plain) == recipe() == build(recipe, {})
    assert build(recipe, json.loads(json.dumps(plain))) == recipe()


@every_recipe
def test_a_recipe_says_what_it_is_for_in_one_line(recipe: type[Recipe]) -> None:
    assert 20 < len(purpose(recipe)) < 160
    assert "\n" not in purpose(recipe)


def test_plain_values_become_what_they_name() -> None:
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
        ({"huber": "huber_men"}, "no loss called 'huber_men': did you mean 'huber_mean'?"),
        ({"huber": "zzz"}, "no loss called 'zzz': choose one of ce, dlr, huber_mean"),
        ({"policy": "evry"}, "no guide policy called 'evry': did you mean 'every'?"),
        ({"threat": "Linf"}, "'Linf' is no threat model: write NORM:RADIUS"),
        ({"threat": "Linff:0.1"}, "no norm called 'Linff'"),
    ],
)
def test_a_name_that_stands_for_nothing_is_one_sentence(values: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as error:
        build(RTFE, values)
    assert words in str(error.value)


def test_every_loss_and_policy_is_listed_under_its_own_name() -> None:
    assert all(loss.__name__ == name for name, loss in (LOSSES | POLICIES).items())
