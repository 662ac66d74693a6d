"""What every recipe on the shelf must do, whatever its paper says."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import Stopping, classifier, held, same, toy_cast, toy_images, train, trained, untouched
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, random_start, small_noise
from forefend.checks import InputError
from forefend.losses import boosted_ce, ce, euclidean, huber_mean, huber_sum, mse, sse
from forefend.models.defended import full, oblivious
from forefend.models.guide import Guide
from forefend.recipes import NRP, RECIPES
from forefend.recipes.base import Networks, Recipe, adam, sgd
from forefend.recipes.denoised_smoothing import classification, reconstruction
from forefend.recipes.ensemble import every, sampled
from forefend.recipes.hgd import feature, logit
from forefend.recipes.state import TrainState
from forefend.recipes.transfer import everything, head, predicted_labels, true_labels
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import L2, Linf
from forefend.training import checkpoint

# Six steps on forty images. The rest is what lets each field matter in so short a run: held-out images that are not
# all alike, rates that fall, a plateau that is reached.
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 16, "steps": 2, "hold_out": 0.15}
MORE: dict[str, dict[str, Any]] = {
    "aaa": {"lr": 1.0, "patience": 0, "epochs": 3},
    "robustifier": {"lr": 0.05},
    "trades": {"milestones": (0.5,)},
    "transfer": {"epochs": 3},
}
# What else a field needs before it can matter, and the values of fields whose type does not tell another.
NEEDS: dict[tuple[str, str], dict[str, Any]] = {("transfer", "moving_statistics"): {"layers": head}}
OTHERS: dict[tuple[str, str], Any] = {
    ("aaa", "patience"): 2,
    ("jat", "tap"): "2",
    ("jatp", "tap"): "2",
    ("jatp-prime", "tap"): "2",
    ("nrp", "tap"): "2",
    ("robustifier", "taps"): ("0", "2"),
    ("rtfe", "ce_weight"): 1.0,
    ("rtfe", "pixel_weight"): 1.0,
}
PAIRS: dict[Any, Any] = {
    boosted_ce: ce,
    euclidean: mse,
    every: sampled,
    everything: head,
    feature: logit,
    huber_mean: huber_sum,
    mse: sse,
    oblivious: full,
    reconstruction: classification,
    sampled: every,
    sgd: adam,
    small_noise: random_start,
    true_labels: predicted_labels,
}
# Forward passes in training form at each step, where they are not one for each network in training.
FORWARDS: dict[str, dict[str, int]] = {
    "ape-gan": {"preprocessor": 3, "discriminator": 4},
    "jat": {"preprocessor": 2, "classifier": 2},
    "jatp": {"preprocessor": 2},
    "jatp-prime": {"preprocessor": 2, "classifier": 2},
    "mart": {"classifier": 2},
    "mma": {"classifier": 2},
    "nrp": {"preprocessor": 1, "discriminator": 4},
    "trades": {"classifier": 2},
    "transfer": {"classifier": 2},
}
FIELDS = [(name, f.name) for name, recipe in RECIPES.items() for f in fields(recipe)]
NAMES = {recipe: name for name, recipe in RECIPES.items()}
every_recipe = pytest.mark.parametrize("recipe", [pytest.param(recipe, id=name) for name, recipe in RECIPES.items()])


def small(recipe: type[Recipe], **more: Any) -> Recipe:
    """The recipe with a budget of a few steps."""
    names = {f.name for f in fields(recipe)}
    settings = {name: value for name, value in SMALL.items() if name in names}
    return recipe(**settings | MORE.get(NAMES[recipe], {}) | more)


def cast_for(recipe: type[Recipe]) -> Networks:
    """Every role filled, with as many guides as the recipe may have."""
    return toy_cast(guides=1 if recipe is NRP else 2)


def run_of(folder: Path) -> Run:
    folder.mkdir()
    return Run(folder)


@cache
def uninterrupted(recipe: Recipe) -> tuple[list[Tensor], str]:
    """What a recipe trains at seed 0, and its `train.jsonl`: several tests compare with the same training."""
    with tempfile.TemporaryDirectory() as folder:
        networks = train(recipe, toy_images(), cast_for(type(recipe)), run=Run(Path(folder)))
        return trained(networks), (Path(folder) / "train.jsonl").read_text()


def result(recipe: Recipe) -> list[Tensor]:
    return uninterrupted(recipe)[0]


def other(value: Any) -> Any:
    """A value of the same kind that a recipe must answer differently to."""
    if value in PAIRS:
        return PAIRS[value]
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


def networks_of(networks: Networks) -> dict[str, nn.Module]:
    return {
        "preprocessor": networks.preprocessor,
        "classifier": networks.classifier,
        "discriminator": networks.discriminator,
    }


@every_recipe
def test_fit_keeps_guides_bit_identical(recipe: type[Recipe]) -> None:
    originals = [classifier(1), classifier(2)]
    originals[0].train()
    originals[0][1].eval()
    originals[1][0].weight.requires_grad_(False)
    networks = cast_for(recipe)
    networks = replace(networks, guides=[Guide(network) for network in originals[: len(networks.guides)]])
    before, prints = [held(network) for network in originals], [guide.fingerprint() for guide in networks.guides]
    train(small(recipe), toy_images(), networks)
    assert [guide.fingerprint() for guide in networks.guides] == prints
    assert all(map(untouched, originals, before))


@every_recipe
def test_fit_changes_only_trainable_networks(recipe: type[Recipe]) -> None:
    networks = cast_for(recipe)
    nets = networks_of(networks)
    own = {name for trainable in small(recipe).configure_optimizers(networks).values() for name in trainable.networks}
    before = {name: held(network) for name, network in nets.items()}
    train(small(recipe), toy_images(), networks)
    assert own
    for trainable in small(recipe).configure_optimizers(networks).values():
        assert all(network is nets[name] for name, network in trainable.networks.items())
    for name, network in nets.items():
        moved = [not torch.equal(a, b) for a, b in zip(held(network)[0], before[name][0], strict=True)]
        assert all(moved) if name in own else untouched(network, before[name]), name
        assert held(network)[1:] == before[name][1:]


@pytest.mark.parametrize("moving", [True, False])
def test_transfer_changes_only_its_layers(moving: bool) -> None:
    networks = toy_cast()
    before = {name: tensor.clone() for name, tensor in networks.classifier.state_dict().items()}
    train(small(RECIPES["transfer"], layers=head, moving_statistics=moving), toy_images(), networks)
    moved = {name for name, tensor in networks.classifier.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert moved == {"4.weight", "4.bias"} | (statistics if moving else set())


@every_recipe
def test_fit_with_the_same_seed_gives_the_same_bits(recipe: type[Recipe]) -> None:
    again, another = (trained(train(small(recipe), toy_images(), cast_for(recipe), seed=seed)) for seed in (0, 1))
    assert same(result(small(recipe)), again)
    assert not same(again, another)


@every_recipe
@pytest.mark.parametrize(("stop", "checkpoint_every"), [(2, 0.0), (4, 0.0), (5, 1e9), (1, 1e9)])
def test_fit_resumed_matches_uninterrupted_bit_for_bit(
    recipe: type[Recipe], stop: int, checkpoint_every: float, tmp_path: Path
) -> None:
    (expected, told), parts = uninterrupted(small(recipe)), run_of(tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        train(
            small(recipe),
            toy_images(),
            cast_for(recipe),
            run=parts,
            augment=Stopping(stop),
            checkpoint_every=checkpoint_every,
        )
    assert same(trained(train(small(recipe), toy_images(), cast_for(recipe), run=parts)), expected)
    assert (parts.folder / "train.jsonl").read_text() == told
    assert same(trained(train(small(recipe), toy_images(), cast_for(recipe), run=parts)), expected)


@pytest.mark.parametrize("name", ["aaa", "mma", "robustifier", "transfer"])
def test_fit_resumed_without_its_state_differs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = small(RECIPES[name]), run_of(tmp_path / "run")
    expected = result(recipe)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, toy_images(), toy_cast(), run=run, augment=Stopping(3 * recipe.epochs - 1), checkpoint_every=0.0)
    load = checkpoint.load

    def forgetful(path: Path, trainables: Any, state: TrainState, **more: Any) -> None:
        stored = TrainState()
        load(path, trainables, stored, **more)
        state.step = stored.step

    monkeypatch.setattr(checkpoint, "load", forgetful)
    assert not same(trained(train(recipe, toy_images(), toy_cast(), run=run)), expected)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_recipe_field_changes_the_result(name: str, field: str) -> None:
    recipe = small(RECIPES[name], **NEEDS.get((name, field), {}))
    value = OTHERS[name, field] if (name, field) in OTHERS else other(getattr(recipe, field))
    changed = replace(recipe, **{field: value})
    assert not same(result(recipe), result(changed))


@pytest.mark.parametrize("name", [name for name, field in FIELDS if field == "threat" and name not in ("mma", "nrp")])
def test_norm_of_the_threat_model_changes_the_result(name: str) -> None:
    one, two = (small(RECIPES[name], threat=threat) for threat in (Linf(0.1), L2(0.1)))
    assert not same(result(one), result(two))


@every_recipe
def test_attacks_change_no_statistics_and_no_gradients(recipe: type[Recipe]) -> None:
    seen: list[Any] = []

    class Recording(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad and not self.training:
                seen.append([p.requires_grad for p in self.parameters()])
            return super().forward(x)

    networks, name = cast_for(recipe), NAMES[recipe]
    networks_seen = {role: Recording(*network) for role, network in networks_of(networks).items()}
    networks_seen["classifier"].feature_layers = networks.classifier.feature_layers
    # Oblivious attackers craft without the networks in training; putting back the best epoch turns its counter back.
    more: dict[str, Any] = {"sees": full, "hold_out": 0.0}
    settings = small(recipe, **{f.name: more[f.name] for f in fields(recipe) if f.name in more})
    train(settings, toy_images(), Networks(guides=networks.guides, **networks_seen))
    own = [role for trainable in settings.configure_optimizers(networks).values() for role in trainable.networks]
    steps = 3 * settings.epochs
    for role, network in networks_seen.items():
        expected = FORWARDS.get(name, {}).get(role, 1) if role in own else 0
        assert int(network[1].num_batches_tracked) == expected * steps, role  # none from crafting
    assert not any(flag for flags in seen for flag in flags)
    assert bool(seen) == hasattr(recipe, "threat")


@every_recipe
def test_attacks_stay_in_the_recipes_threat_model(recipe: type[Recipe], monkeypatch: Any) -> None:
    attacks: list[PGD] = []
    call = PGD.__call__

    def noting(self: PGD, f: Any, x: Tensor, target: Any, *, rng: Any) -> Tensor:
        attacks.append(self)
        x_adv = call(self, f, x, target, rng=rng)
        assert self.threat.allows(x_adv, x).all()
        return x_adv

    monkeypatch.setattr(PGD, "__call__", noting)
    train(small(recipe), toy_images(), cast_for(recipe))
    assert bool(attacks) == hasattr(recipe, "threat")
    assert {attack.steps for attack in attacks} <= {2}
    if recipe is not RECIPES["mma"]:  # whose radii are each image's own
        assert {attack.threat for attack in attacks} <= {getattr(recipe, "threat", None)}


@every_recipe
def test_inner_attack_has_the_settings_of_the_recipe(recipe: type[Recipe]) -> None:
    built = small(recipe)
    attack = built.inner_attack()
    assert (attack is None) == (not hasattr(built, "threat"))
    if attack is not None:
        assert (attack.threat, attack.steps) == (built.threat, 2)  # type: ignore[attr-defined]
        assert attack.step_size == pytest.approx(built.relative_step * built.threat.radius)  # type: ignore[attr-defined]


@every_recipe
def test_configure_optimizers_without_a_network_raises(recipe: type[Recipe]) -> None:
    networks = cast_for(recipe)
    needed = {name for trainable in recipe().configure_optimizers(networks).values() for name in trainable.networks}
    with pytest.raises(InputError, match=r"given|name at least one"):
        small(recipe).configure_optimizers(Networks())
    for name in needed:
        nets = networks_of(networks) | {name: nn.Identity()}
        with pytest.raises(InputError, match=f"trains a {name}, and none was given: give Networks a {name}"):
            small(recipe).configure_optimizers(Networks(guides=networks.guides, **nets))
