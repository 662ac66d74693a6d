from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from helpers.spy_recipe import Spy
from helpers.toy_networks import preprocessor, same, toy_cast, toy_images, train, trained, with_roles_of
from safetensors.torch import load_file
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.checks import InputError
from forefend.models import preprocessors
from forefend.models.defense import Defense, load
from forefend.recipes import RTFE, Natural, Robustifier
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable
from forefend.recipes.schedules import cosine, step_decay
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import Linf
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit

CPU = Accelerator(cpu=True)
SMALL = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)


def spied(count: int = 40, seed: int = 0, **options: int) -> list[Batch]:
    spy = Spy([], [], **options)
    train(spy, toy_images(count), toy_cast(), seed=seed)
    return spy.seen


def epochs_of(batches: list[Batch], per_epoch: int) -> list[list[int]]:
    return [
        torch.cat([b.index for b in batches[start : start + per_epoch]]).tolist()
        for start in range(0, len(batches), per_epoch)
    ]


@pytest.mark.parametrize(("count", "batch_size", "per_epoch"), [(40, 16, 3), (33, 16, 3), (40, 100, 1), (5, 1, 5)])
def test_epoch_holds_every_image_once(count: int, batch_size: int, per_epoch: int) -> None:
    batches = spied(count, batch_size=batch_size)
    sizes = [len(b.x) for b in batches]
    assert len(batches) == 2 * per_epoch
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    for epoch in epochs_of(batches, per_epoch):
        assert sorted(epoch) == list(range(count))


def test_order_depends_on_epoch_and_seed() -> None:
    first, again, another = (epochs_of(spied(seed=seed), 3) for seed in (0, 0, 1))
    assert first == again
    assert first[0] != first[1]
    assert first[0] != another[0]


def test_batch_holds_images_labels_progress_and_rng() -> None:
    images = toy_images()
    for step, batch in enumerate(spied()):
        x, y, _ = images.batch(batch.index)
        assert torch.equal(batch.x, x)
        assert torch.equal(batch.y, y)
        assert batch.progress == pytest.approx(step / 6)
        assert (batch.rng.step, batch.rng.purpose) == (step, "train")
        assert torch.equal(batch.rng.index, batch.index)


def test_schedule_scales_the_rate_by_progress() -> None:
    spy, networks = Spy([], []), toy_cast()
    before = [p.detach().clone() for p in networks.preprocessor.parameters()]
    train(spy, toy_images(), networks)
    assert spy.rates == pytest.approx([step / 6 for step in range(6)])
    for old, new in zip(before, networks.preprocessor.parameters(), strict=True):
        torch.testing.assert_close(old - new.detach(), torch.full_like(old, 6e-3))  # each step 1e-3 times gradient 1


def test_schedules_have_known_values() -> None:
    decay = step_decay((0.5, 0.75), 0.1)
    assert [decay(p) for p in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert step_decay((), 0.1)(0.9) == 1
    assert [cosine(p) for p in (0, 1 / 3, 0.5, 1)] == pytest.approx([1, 0.75, 0.5, 0])


def test_augment_gets_the_batch_and_its_own_rng() -> None:
    draws: list[KeyedRNG] = []

    def darken(x: Tensor, rng: KeyedRNG) -> Tensor:
        draws.append(rng)
        return x / 2

    spy = Spy([], [])
    train(spy, toy_images(), toy_cast(), augment=darken)
    assert {rng.purpose for rng in draws} == {"augment"}
    assert [rng.step for rng in draws] == list(range(6))
    assert torch.equal(spy.seen[0].x, toy_images().batch(spy.seen[0].index)[0] / 2)


@dataclass(frozen=True)
class Pair(Recipe):
    """Two trainables, whose networks both affect both losses."""

    order: list[str]
    epochs: int = 1
    batch_size: int = 40

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        nets = {"preprocessor": networks.preprocessor, "classifier": networks.classifier}
        return {
            name: Trainable({name: n}, torch.optim.SGD(n.parameters(), 0.1), lambda progress: 1.0)
            for name, n in nets.items()
        }

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        nets = {"preprocessor": train.preprocessor, "classifier": train.classifier}
        for name in self.order:
            before = {key: trained(Networks(n)) for key, n in nets.items()}
            logits = train.classifier(train.preprocessor(batch.x))
            mid = {key: [p.detach().clone() for p in n.parameters()] for key, n in nets.items()}
            yield name, nn.functional.cross_entropy(logits, batch.y)
            for key, network in nets.items():
                moved = not same([p.detach() for p in network.parameters()], mid[key])
                assert moved == (key == name), (key, name, before.keys())
                assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("order", [["preprocessor"], ["classifier", "preprocessor"], ["classifier"] * 3])
def test_fit_updates_only_the_yielded_trainable(order: list[str]) -> None:
    train(Pair(order), toy_images(), toy_cast())


def test_fit_with_a_nan_loss_raises_and_saves_nothing(tmp_path: Path) -> None:
    networks, run = toy_cast(), Run(tmp_path)
    with pytest.raises(InputError, match="loss of the preprocessor is nan at step 3"):
        train(Spy([], [], bad_step=4), toy_images(), networks, run=run, checkpoint_every=0.0)
    assert all(t.isfinite().all() for t in load_file(run.checkpoint).values())


def test_fit_seeds_dropout_and_restores_the_generator() -> None:
    def run(torch_seed: int) -> list[Tensor]:
        networks = Networks(nn.Sequential(*preprocessor(), nn.Dropout(0.5)), toy_cast().guides)
        torch.manual_seed(torch_seed)
        state = torch.get_rng_state()
        weights = trained(train(SMALL, toy_images(), networks))
        assert torch.equal(torch.get_rng_state(), state)
        return weights

    assert same(run(1), run(2))


def test_fit_with_a_changed_guide_raises() -> None:
    networks = toy_cast()

    def meddle(x: Tensor, rng: KeyedRNG) -> Tensor:
        with torch.no_grad():
            next(networks.guides[1].parameters()).add_(1)
        return x

    with pytest.raises(RuntimeError, match="A guide changed during training"):
        train(SMALL, toy_images(), networks, augment=meddle)


def test_fit_without_a_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(Natural(epochs=1), toy_images(), toy_cast())
    assert not list(tmp_path.iterdir())


def test_fit_off_a_terminal_prints_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    train(Natural(epochs=2), toy_images(), toy_cast())
    assert re.fullmatch(r"(epoch \d/2: classifier loss \d\.\d{4}, \d+ s left\n){2}", capsys.readouterr().out)


def test_fit_with_the_name_of_an_inner_attack_raises() -> None:
    with pytest.raises(InputError, match="A str was given as inner_attack"):
        train(RTFE(Linf(0.1), epochs=1), toy_images(), toy_cast(), inner_attack="gradual")


def test_fit_returns_the_defense_it_trained(tmp_path: Path) -> None:
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    networks = Networks(network, toy_cast().guides)
    defense = fit(SMALL, toy_images(), networks, accelerator=CPU, config=TrainingConfig(ema=0.5))
    assert isinstance(defense, Defense)
    assert not defense.training
    x = toy_images().batch(torch.arange(4))[0]
    assert torch.equal(defense(x), network.eval()(x))
    assert (defense.card.recipe, defense.card.architecture, defense.card.ema) == ("rtfe", "narrow-unet", 0.5)
    assert all(defense.has_seen(guide) for guide in networks.guides)
    defense.save(tmp_path)
    torch.testing.assert_close(load(tmp_path)(x).detach(), defense(x))


def test_fit_of_a_foreign_preprocessor_returns_what_cannot_be_saved(tmp_path: Path) -> None:
    defense = fit(SMALL, toy_images(), with_roles_of(SMALL, toy_cast()), accelerator=CPU)
    assert isinstance(defense, Defense)
    with pytest.raises(InputError, match=r"^Sequential is not a preprocessor of forefend"):
        defense.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_fit_returns_the_classifier_in_eval_mode() -> None:
    networks = with_roles_of(Natural(), toy_cast())
    classifier = fit(Natural(epochs=1), toy_images(), networks, accelerator=CPU)
    assert not classifier.training
    for ours, own in zip(classifier.parameters(), networks.classifier.parameters(), strict=True):
        assert ours.data_ptr() == own.data_ptr()


def test_fit_accepts_a_pair_of_tensors_as_training_images() -> None:
    x, y, _ = toy_images().batch(torch.arange(40))
    recipe = Robustifier(Linf(0.1), steps=1, epochs=1, batch_size=16, hold_out=0.2)
    one, other = (with_roles_of(recipe, toy_cast()) for _ in range(2))
    fit(recipe, (x, y), one, accelerator=CPU)
    fit(recipe, toy_images(), other, accelerator=CPU)
    assert same(trained(one), trained(other))
