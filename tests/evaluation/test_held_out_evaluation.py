"""Held-out images, the state of a recipe, and the factor on learning rates in the training loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import Stopping, classifier, toy_images, train

from forefend.attacks.base import Attack
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.losses import ce
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable
from forefend.recipes.schedules import constant
from forefend.recipes.state import TrainState
from forefend.runtime.run_folder import Run


@dataclass(frozen=True)
class Looking(Recipe):
    """Records its batches, halves the rate after each epoch, and counts how often it sees each image."""

    seen: dict[str, list[Any]] = field(default_factory=lambda: {"train": [], "held": [], "lr": [], "end": []})
    hold_out: float = 0.2
    epochs: int = 3
    batch_size: int = 16

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        sgd = torch.optim.SGD(networks.classifier.parameters(), 0.4)
        self.seen["optimizer"] = [sgd]
        return {"classifier": Trainable({"classifier": networks.classifier}, sgd, constant)}

    def init_state(self, data: ImageDataset) -> dict[str, torch.Tensor]:
        self.seen["indices"] = [data.index]
        return {"visits": torch.zeros(40)}

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        self.seen["train"].append(batch)
        state.per_image["visits"][batch.index] += 1
        yield "classifier", ce(train.classifier(batch.x), batch.y).mean()
        self.seen["lr"].append(self.seen["optimizer"][0].param_groups[0]["lr"])

    def validate(self, craft: Networks, batches: Iterable[Batch], state: TrainState) -> None:
        assert not craft.classifier.training
        self.seen["held"].append(list(batches))
        state.lr_factor /= 2

    def on_train_end(self, networks: Networks, state: TrainState) -> None:
        self.seen["end"].append({"visits": state.per_image["visits"].clone(), "lr_factor": state.lr_factor})


def looked(**options: Any) -> dict[str, list[Any]]:
    recipe = Looking()
    train(recipe, toy_images(), Networks(classifier=classifier()), **options)
    return recipe.seen


def test_held_out_images_are_validated_and_not_trained_on() -> None:
    seen = looked(augment=lambda x, rng: x / 2)
    trained = {int(i) for batch in seen["train"] for i in batch.index}
    assert len(seen["held"]) == 3
    for batches in seen["held"]:
        shown = torch.cat([batch.index for batch in batches])
        assert len(shown) == 8
        assert trained | set(shown.tolist()) == set(range(40))
        assert not trained & set(shown.tolist())
        assert torch.cat([batch.y for batch in batches]).bincount().tolist() == [2, 2, 2, 2]
        for batch in batches:  # as they are: not augmented
            assert torch.equal(batch.x, toy_images().batch(batch.index)[0])
    assert set(seen["indices"][0].tolist()) == trained


def test_held_out_images_depend_on_the_seed_alone() -> None:
    def held(seed: int) -> list[int]:
        return [int(i) for batch in looked(seed=seed)["held"][0] for i in batch.index]

    assert held(0) == held(0) != held(1)
    first, second, _ = (batches[0] for batches in looked()["held"])
    assert torch.equal(first.rng.uniform(first.x), second.rng.uniform(second.x))
    assert not torch.equal(first.rng.uniform(first.x), first.rng.fold_in(purpose="train").uniform(first.x))
    assert [batches[0].progress for batches in looked()["held"]] == pytest.approx([1 / 3, 2 / 3, 1])


def test_lr_factor_scales_the_rate_and_survives_resuming(tmp_path: Path) -> None:
    whole = looked()
    assert whole["lr"] == pytest.approx([0.4] * 2 + [0.2] * 2 + [0.1] * 2)
    run = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        looked(run=run, augment=Stopping(5), checkpoint_every=0.0)
    rest = looked(run=run)
    assert rest["lr"] == pytest.approx([0.1])
    assert (rest["end"][0]["visits"] == whole["end"][0]["visits"]).all()
    assert rest["end"][0]["lr_factor"] == 1 / 8
    assert whole["end"][0]["visits"].sum() == 3 * 32


def test_fit_with_hold_out_of_test_images_raises() -> None:
    with pytest.raises(InputError, match=r"test split of .toy. was given"):
        train(Looking(), toy_images(split="test"), Networks(classifier=classifier()))
