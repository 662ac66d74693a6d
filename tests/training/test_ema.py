from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.spy_recipe import Spy
from helpers.toy_networks import Stopping, same, toy_cast, toy_images, train, trained
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from forefend.checks import InputError
from forefend.recipes import RTFE, Adversarial, Natural, Robustifier
from forefend.recipes.base import Batch, Networks, Trainable
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import Linf
from forefend.training.ema import average_loaded, averaged, trained_networks
from forefend.training.inner_attacks import ATTA

SMALL = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)


def trainable(network: nn.Module) -> Trainable:
    return Trainable({"network": network}, torch.optim.SGD(network.parameters(), 0.1), lambda progress: 1.0)


def test_averaged_matches_the_recurrence() -> None:
    network = nn.Linear(1, 1, bias=False)
    weights = [3.0, 1.0, -2.0, 5.0]
    with torch.no_grad():
        network.weight.fill_(weights[0])
    trained_ones = [trainable(network)]
    average, expected = averaged(trained_ones, 0.2), weights[0]
    for step, weight in enumerate(weights[1:]):
        with torch.no_grad():
            network.weight.fill_(weight)
        average.update_parameters(trained_networks(trained_ones))
        kept = [0.1, 2 / 11, 0.2][step]  # (1 + t) / (10 + t) until it passes the decay
        expected = kept * expected + (1 - kept) * weight
        assert float(average.module[0].weight.detach()) == pytest.approx(expected)


def test_averaged_averages_statistics_and_copies_counts() -> None:
    norm = nn.BatchNorm2d(2)
    average = averaged([trainable(norm)], 0.5)
    average.n_averaged.fill_(10**6)
    norm.running_mean.fill_(10.0)
    norm.num_batches_tracked.fill_(7)
    average.update_parameters(trained_networks([trainable(norm)]))
    assert average.module[0].running_mean.tolist() == [5.0, 5.0]
    assert int(average.module[0].num_batches_tracked) == 7


def test_average_loaded_restores_the_weights() -> None:
    network = nn.Linear(2, 2)
    average, networks = averaged([trainable(network)], 0.5), trained_networks([trainable(network)])
    with torch.no_grad():
        network.weight.add_(1)
    own = network.weight.detach().clone()
    with contextlib.suppress(KeyboardInterrupt), average_loaded(average, networks):
        assert torch.equal(network.weight, average.module[0].weight)
        raise KeyboardInterrupt
    assert torch.equal(network.weight, own)
    with average_loaded(None, networks):
        assert torch.equal(network.weight, own)


def twin(decay: float) -> dict[str, Tensor]:
    """Training without an average, and one kept by hand of the weights at the start of each step and at the end."""
    networks = toy_cast()
    seen: list[dict[str, Tensor]] = []

    def look(x: Tensor, rng: object) -> Tensor:
        seen.append({name: t.clone() for name, t in networks.preprocessor.state_dict().items()})
        return x

    train(SMALL, toy_images(), networks, augment=look)
    seen.append(dict(networks.preprocessor.state_dict()))
    average = seen[0]
    for step, state in enumerate(seen[1:]):
        kept = min(decay, (1 + step) / (10 + step))
        average = {n: kept * average[n] + (1 - kept) * t if t.is_floating_point() else t for n, t in state.items()}
    return average


def test_fit_with_ema_returns_the_average_of_all_steps() -> None:
    networks = train(SMALL, toy_images(), toy_cast(), ema=0.3)
    for name, tensor in twin(0.3).items():
        torch.testing.assert_close(networks.preprocessor.state_dict()[name], tensor)
    assert not same(trained(networks), trained(train(SMALL, toy_images(), toy_cast())))


def test_fit_with_ema_resumes_to_the_same_average(tmp_path: Path) -> None:
    expected = trained(train(SMALL, toy_images(), toy_cast(), ema=0.9))
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, toy_images(), toy_cast(), ema=0.9, run=Run(tmp_path), augment=Stopping(4), checkpoint_every=0)
    for _ in range(2):  # the second finds training at its end
        assert same(trained(train(SMALL, toy_images(), toy_cast(), ema=0.9, run=Run(tmp_path))), expected)


@dataclass(frozen=True)
class Validating(Spy):
    """Keeps the weights that the loop lets it validate, and those in training at the next step."""

    hold_out: float = 0.2
    validated: list[Tensor] = field(default_factory=list)

    def validate(self, craft: Networks, batches: Iterable[Batch], state: TrainState) -> None:
        self.validated.append(craft.preprocessor[0].weight.clone())


def test_validate_uses_the_average_and_keeps_the_weights() -> None:
    recipe, networks, plain = Validating([], []), toy_cast(), toy_cast()
    train(recipe, toy_images(), networks, ema=0.9)
    assert torch.equal(recipe.validated[-1], networks.preprocessor[0].weight)
    other = Validating([], [])
    train(other, toy_images(), plain)
    own = other.validated[-1] - other.validated[0]  # each weight falls by the same at every step
    assert float(own.mean()) < 0
    assert not torch.equal(recipe.validated[-1], other.validated[-1])
    assert float((recipe.validated[-1] - other.validated[-1]).max()) < 3e-3 * 4  # a few steps of 1e-3


def test_keep_best_keeps_the_average() -> None:
    recipe = Robustifier(Linf(0.1), steps=1, epochs=1, batch_size=8, hold_out=0.2)
    averaged, plain = (trained(train(recipe, toy_images(), toy_cast(), ema=ema)) for ema in (0.9, None))
    assert not same(averaged, plain)


@pytest.mark.parametrize(("first", "second"), [(None, 0.9), (0.9, None)])
def test_fit_with_another_ema_does_not_resume(first: float | None, second: float | None, tmp_path: Path) -> None:
    train(SMALL, toy_images(), toy_cast(), ema=first, run=Run(tmp_path))
    with pytest.raises(InputError, match=rf"\(ema was {first}, now {second}\)"):
        train(SMALL, toy_images(), toy_cast(), ema=second, run=Run(tmp_path))


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, 1.5, float("nan")])
def test_fit_with_invalid_ema_raises(decay: float) -> None:
    with pytest.raises(InputError, match="expected between 0 and 1"):
        train(SMALL, toy_images(), toy_cast(), ema=decay)


def batches_of(networks: Networks, **options: object) -> list[Tensor]:
    """Train, and return the images of every step and of every estimate."""
    seen: list[Tensor] = []

    def look(x: Tensor, rng: object) -> Tensor:
        seen.append(x.clone())
        return x

    train(CLASSIFIER, toy_images(), networks, augment=look, **options)
    return seen


CLASSIFIER = Natural(epochs=2, batch_size=16)  # three steps an epoch


def test_estimated_statistics_match_a_full_recomputation() -> None:
    plain, estimated = toy_cast(), toy_cast()
    train(CLASSIFIER, toy_images(), plain, ema=0.9)
    seen = batches_of(estimated, ema=0.9, ema_statistics=4)
    assert len(seen) == 6 + 3
    assert all(map(torch.equal, seen[6:], seen[3:6]))  # the last epoch again
    for own, theirs in zip(plain.classifier.parameters(), estimated.classifier.parameters(), strict=True):
        assert torch.equal(own, theirs)
    assert not torch.equal(plain.classifier[1].running_mean, estimated.classifier[1].running_mean)
    update_bn(seen[3:6], plain.classifier)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(estimated.classifier[1], name), getattr(plain.classifier[1], name))
    assert estimated.classifier[1].momentum == 0.1


def test_estimated_statistics_are_those_of_attacked_images() -> None:
    recipe = Adversarial(Linf(0.1), steps=2, epochs=1, batch_size=40)
    plain, estimated = toy_cast(), toy_cast()
    train(recipe, toy_images(), plain, ema=0.9)
    train(recipe, toy_images(), estimated, ema=0.9, ema_statistics=1)
    network, (x, y, index) = plain.classifier.eval(), toy_images().batch(torch.arange(40))
    x_adv = recipe.inner_attack()(network, x, y, rng=KeyedRNG(index, 0, "train", step=0))
    features = network[0](x_adv)
    torch.testing.assert_close(estimated.classifier[1].running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(estimated.classifier[1].running_var, features.var((0, 2, 3)))


def test_estimate_leaves_training_as_it_is(tmp_path: Path) -> None:
    options = {"inner_attack": ATTA(), "keep_best": 0.1}
    one, two = toy_cast(), toy_cast()
    train(SMALL, toy_images(), one, ema=0.5, run=tmp_path / "one", **options)
    train(SMALL, toy_images(), two, ema=0.5, ema_statistics=2, run=tmp_path / "two", **options)
    stored = [load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two")]
    for name, tensor in stored[0].items():
        if name.startswith(("/trainables", "/average", "/state/perturbations")):
            assert torch.equal(tensor, stored[1][name]), name


def test_checkpoint_of_an_average_holds_the_weights_of_training_without(tmp_path: Path) -> None:
    plain = train(SMALL, toy_images(), toy_cast())
    train(SMALL, toy_images(), toy_cast(), ema=0.9, run=tmp_path)
    stored = load_file(tmp_path / "checkpoint.safetensors")
    for name, tensor in plain.preprocessor.state_dict().items():
        assert torch.equal(tensor, stored[f"/trainables/preprocessor/networks/preprocessor/{name}"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ema": 0.9, "ema_statistics": 0}, "expected at least one batch"),
        ({"ema_statistics": 5}, "belongs to an average"),
    ],
)
def test_fit_with_invalid_ema_statistics_raises(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(SMALL, toy_images(), toy_cast(), **options)
