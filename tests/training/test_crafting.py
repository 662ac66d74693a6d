from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.spy_recipe import Spy
from helpers.toy_networks import Stopping, classifier, same, toy_cast, toy_images, train, trained
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.guide import Guide, read
from forefend.models.optimized_copy import OptimizedCopy
from forefend.recipes import AAA, JAT, RECIPES, RTFE, Robustifier
from forefend.recipes.base import Batch, Networks, Recipe
from forefend.recipes.ensemble import every
from forefend.recipes.state import TrainState
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import Linf
from forefend.training import trainer
from forefend.training.crafting import ATTACK_COPIES, CraftingView

SMALL = RTFE(Linf(0.1), steps=2, epochs=2, batch_size=16)
each = pytest.mark.parametrize("precision", ATTACK_COPIES.values(), ids=ATTACK_COPIES)
fast = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def images(count: int = 8) -> Tensor:
    return toy_images(count).batch(torch.arange(count))[0]


def moved(network: nn.Module) -> None:
    """Change every parameter and statistic, in place, as training does."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.mul_(1.25).add_(0.1)


@pytest.mark.parametrize(("precision", "tolerance"), [(None, 1e-7), ("fp32", 1e-5), ("bf16", 0.05)])
def test_view_follows_the_networks_in_training(precision: str | None, tolerance: float) -> None:
    networks, x = toy_cast(), images()
    view = CraftingView(networks, x, precision)
    for _ in range(2):
        seen = view.refresh()
        nets = [(networks.preprocessor, seen.preprocessor), (networks.classifier, seen.classifier)]
        for network, stand_in in [*nets, *zip(networks.guides, seen.guides, strict=True)]:
            expected = network.eval()(x).detach()
            torch.testing.assert_close(stand_in(x), expected, rtol=tolerance, atol=tolerance * float(expected.max()))
        moved(networks.preprocessor)
        moved(networks.classifier)


@fast
def test_view_calls_the_copies(precision: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[OptimizedCopy] = []
    forward = OptimizedCopy.forward

    def spy(self: OptimizedCopy, x: Tensor) -> Any:
        asked.append(self)
        return forward(self, x)

    monkeypatch.setattr(OptimizedCopy, "forward", spy)
    networks, x = toy_cast(), images()
    seen = CraftingView(networks, x, precision).refresh()
    asked.clear()
    seen.guides[0](seen.preprocessor(x))
    assert len(asked) == 2
    networks.guides[0](networks.preprocessor(x))
    assert len(asked) == 2


@pytest.mark.parametrize("recipe", [RTFE, AAA, Robustifier], ids=lambda recipe: recipe.__name__)
def test_fit_attacks_copies_of_preprocessor_and_guides(
    recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[int] = set()
    forward = OptimizedCopy.forward

    def spy(self: OptimizedCopy, x: Tensor) -> Any:
        asked.add(id(self))
        return forward(self, x)

    monkeypatch.setattr(OptimizedCopy, "forward", spy)
    small = recipe(Linf(0.1), steps=1, epochs=1, batch_size=20, policy=every)
    train(small, toy_images(), toy_cast(), attack_copy="fp32")
    assert len(asked) == 3


@fast
def test_view_reads_features_of_the_network_itself(precision: str | None) -> None:
    networks, x = toy_cast(), images()
    seen = CraftingView(networks, x, precision).refresh()
    for network, stand_in in ((networks.classifier, seen.classifier), (networks.guides[0].classifier, seen.guides[0])):
        logits, features = read(network.eval(), x, ["1"])
        own = stand_in.read(x, ["1"]) if isinstance(stand_in, Guide) else read(stand_in, x, ["1"])
        assert torch.equal(own[0], logits)
        assert torch.equal(own[1]["1"], features["1"])


@fast
def test_view_passes_gradients_to_images_alone(precision: str | None) -> None:
    networks, x = toy_cast(), images().requires_grad_()
    seen = CraftingView(networks, x.detach(), precision).refresh()
    seen.guides[0](seen.preprocessor(x)).sum().backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    nets = (networks.preprocessor, seen.preprocessor, *seen.guides)
    assert all(p.grad is None for network in nets for p in network.parameters())
    assert not any(p.requires_grad for network in (seen.preprocessor, *seen.guides) for p in network.parameters())


@each
def test_fit_with_copies_resumes_to_the_same_weights(precision: str | None, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(
            SMALL,
            toy_images(),
            toy_cast(),
            run=Run(tmp_path),
            attack_copy=precision,
            augment=Stopping(4),
            checkpoint_every=0,
        )
    resumed = trained(train(SMALL, toy_images(), toy_cast(), run=Run(tmp_path), attack_copy=precision))
    assert same(resumed, trained(train(SMALL, toy_images(), toy_cast(), attack_copy=precision)))


def test_fit_with_copies_gives_close_weights() -> None:
    weights = {
        c: torch.cat([t.flatten() for t in trained(train(SMALL, toy_images(), toy_cast(), attack_copy=c))])
        for c in ATTACK_COPIES.values()
    }
    start = torch.cat([t.flatten() for t in trained(toy_cast())])
    way = float((weights[None] - start).norm())
    assert way > 0.1
    assert float((weights["fp32"] - weights[None]).norm()) < 1e-2 * way
    assert 0 < float((weights["bf16"] - weights[None]).norm()) < 0.3 * way


@dataclass(frozen=True)
class Validating(Spy):
    """Keeps what the loop lets it validate."""

    hold_out: float = 0.2
    crafts: list[Networks] = field(default_factory=list)

    def validate(self, craft: Networks, batches: Iterator[Batch], state: TrainState) -> None:
        self.crafts.append(craft)


@fast
def test_validate_uses_the_networks_themselves(precision: str | None) -> None:
    recipe, networks, x = Validating([], []), toy_cast(), images()
    train(recipe, toy_images(), networks, attack_copy=precision, precision="bf16")
    assert torch.equal(recipe.crafts[-1].preprocessor(x), networks.preprocessor.eval()(x))
    assert recipe.crafts[-1].preprocessor.state_dict().keys() == networks.preprocessor.state_dict().keys()


def test_view_is_made_once_and_refreshed_before_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made, refreshed = [], []

    class Counting(CraftingView):
        def __init__(self, networks: Networks, x: Tensor, precision: str | None) -> None:
            made.append(len(x))
            super().__init__(networks, x, precision)

        def refresh(self) -> Networks:
            refreshed.append(1)
            return super().refresh()

    monkeypatch.setattr(trainer, "CraftingView", Counting)
    train(SMALL, toy_images(), toy_cast())
    assert (len(made), len(refreshed)) == (1, 6)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_trains_with_bf16_copies(name: str) -> None:
    recipe: Recipe = RECIPES[name]()
    small = {"epochs": 1, "batch_size": 20, "steps": 2}
    recipe = replace(recipe, **{key: value for key, value in small.items() if hasattr(recipe, key)})
    networks = toy_cast(guides=1 if name == "nrp" else 2)
    before = trained(networks)
    train(recipe, toy_images(), networks, attack_copy="bf16", precision="bf16")
    assert not same(trained(networks), before)
    assert all(tensor.dtype == torch.float32 for tensor in trained(networks) if tensor.is_floating_point())


def test_attacks_on_features_do_not_use_copies() -> None:
    recipe = JAT(Linf(0.1), steps=2, epochs=1, batch_size=20)
    a, b = (trained(train(recipe, toy_images(), toy_cast(), attack_copy=copy)) for copy in (None, "fp32"))
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_fit_with_copies_keeps_the_given_classifier() -> None:
    original = classifier(1)
    before = [t.clone() for t in original.state_dict().values()]
    networks = replace(toy_cast(), guides=[Guide(original)])
    train(Robustifier(Linf(0.1), steps=1, epochs=1), toy_images(), networks, attack_copy="bf16", precision="bf16")
    assert same(list(original.state_dict().values()), before)
    assert "forward" not in vars(original)
    assert not original._forward_hooks
    assert not original._forward_pre_hooks


def test_view_with_unknown_precision_raises() -> None:
    with pytest.raises(InputError, match=r"^There is no precision called 'bf17': did you mean 'bf16'\?$"):
        CraftingView(toy_cast(), images(), "bf17")
