"""What every recipe on the shelf must do, whatever its paper says."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import Stopping, classifier, held, same, toy_cast, toy_images, train, trained, untouched

from forefend.checks import InputError
from forefend.guides import Guide, every, sampled
from forefend.losses import huber_mean, huber_sum
from forefend.recipe import Cast, Recipe
from forefend.recipes import RECIPES
from forefend.records import Run
from forefend.threat import L2, Linf

SMALL = {"epochs": 2, "batch_size": 16, "steps": 2}
# Another value for the fields whose type does not tell one, by recipe and field.
OTHERS: dict[tuple[str, str], Any] = {}
FIELDS = [(name, f.name) for name, recipe in RECIPES.items() for f in fields(recipe)]
every_recipe = pytest.mark.parametrize("recipe", [pytest.param(recipe, id=name) for name, recipe in RECIPES.items()])


def small(recipe: type[Recipe]) -> Recipe:
    """The recipe with a budget of six steps on forty images."""
    names = {f.name for f in fields(recipe)}
    return recipe(**{name: value for name, value in SMALL.items() if name in names})


def run_of(folder: Path) -> Run:
    folder.mkdir()
    return Run(folder)


def other(value: Any) -> Any:
    """A value of the same kind that a recipe must answer differently to."""
    pairs = {every: sampled, huber_mean: huber_sum}
    if value in pairs:
        return pairs[value]
    if isinstance(value, Linf):
        return Linf(value.radius / 2)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value
    if isinstance(value, tuple):
        return tuple(item / 2 for item in value)
    assert isinstance(value, float), f"say what another {value!r} is"
    return value / 2


@every_recipe
def test_guides_and_the_originals_behind_them_are_bit_identical_after_a_run(recipe: type[Recipe]) -> None:
    originals = [classifier(1), classifier(2)]
    originals[0].train()
    originals[0][1].eval()
    originals[1][0].weight.requires_grad_(False)
    cast = replace(toy_cast(), guides=[Guide(network) for network in originals])
    before, prints = [held(network) for network in originals], [guide.fingerprint() for guide in cast.guides]
    train(small(recipe), toy_images(), cast)
    assert [guide.fingerprint() for guide in cast.guides] == prints
    assert all(map(untouched, originals, before))


@every_recipe
def test_only_the_players_networks_move(recipe: type[Recipe]) -> None:
    cast = toy_cast()
    networks = [cast.preprocessor, cast.classifier]
    own = [n for player in small(recipe).players(cast).values() for n in player.networks.values()]
    before = [held(network) for network in networks]
    train(small(recipe), toy_images(), cast)
    assert own
    assert all(any(network is one for one in networks) for network in own)
    for network, old in zip(networks, before, strict=True):
        moved = [not torch.equal(a, b) for a, b in zip(held(network)[0], old[0], strict=True)]
        assert all(moved) if any(network is one for one in own) else untouched(network, old)


@every_recipe
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(recipe: type[Recipe]) -> None:
    first, again, another = (trained(train(small(recipe), toy_images(), toy_cast(), seed=seed)) for seed in (0, 0, 1))
    assert same(first, again)
    assert not same(first, another)


@every_recipe
@pytest.mark.parametrize(("stop", "checkpoint_every"), [(2, 0.0), (4, 0.0), (5, 1e9), (1, 1e9)])
def test_resumed_is_uninterrupted_bit_for_bit(
    recipe: type[Recipe], stop: int, checkpoint_every: float, tmp_path: Path
) -> None:
    whole, parts = run_of(tmp_path / "whole"), run_of(tmp_path / "parts")
    expected = trained(train(small(recipe), toy_images(), toy_cast(), run=whole))
    with pytest.raises(KeyboardInterrupt):
        train(
            small(recipe),
            toy_images(),
            toy_cast(),
            run=parts,
            augment=Stopping(stop),
            checkpoint_every=checkpoint_every,
        )
    assert same(trained(train(small(recipe), toy_images(), toy_cast(), run=parts)), expected)
    assert (parts.folder / "train.jsonl").read_text() == (whole.folder / "train.jsonl").read_text()
    assert same(trained(train(small(recipe), toy_images(), toy_cast(), run=parts)), expected)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_changes_the_result(name: str, field: str) -> None:
    recipe = small(RECIPES[name])
    value = OTHERS[name, field] if (name, field) in OTHERS else other(getattr(recipe, field))
    changed = replace(recipe, **{field: value})
    one, two = (trained(train(r, toy_images(), toy_cast())) for r in (recipe, changed))
    assert not same(one, two)


@pytest.mark.parametrize("name", [name for name, field in FIELDS if field == "threat"])
def test_the_norm_of_the_threat_model_changes_the_result(name: str) -> None:
    recipe = small(RECIPES[name])
    one, two = (
        trained(train(replace(recipe, threat=threat), toy_images(), toy_cast())) for threat in (Linf(0.1), L2(0.1))
    )
    assert not same(one, two)


@every_recipe
def test_crafting_asks_no_weight_for_a_gradient_and_moves_no_statistics(recipe: type[Recipe]) -> None:
    cast = toy_cast()
    seen: list[Any] = []

    class Watching(type(cast.preprocessor)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.requires_grad and not self.training:
                seen.append([p.requires_grad for p in self.parameters()])
            return super().forward(x)

    watched = Cast(Watching(*cast.preprocessor), cast.guides, Watching(*cast.classifier))
    train(small(recipe), toy_images(), watched)
    tracked = [n[1].num_batches_tracked for n in (watched.preprocessor, watched.classifier)]
    assert not any(flag for flags in seen for flag in flags)
    assert max(int(t) for t in tracked) == 6  # one training forward a step, none from crafting
    assert bool(seen) == hasattr(small(recipe), "threat")


@every_recipe
def test_a_cast_without_the_network_that_it_trains_is_refused(recipe: type[Recipe]) -> None:
    with pytest.raises(InputError, match=r"given|name at least one"):
        small(recipe).players(Cast())
    with pytest.raises(InputError, match="none was given: name one with --"):
        small(recipe).players(Cast(guides=toy_cast().guides))
