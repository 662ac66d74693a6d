"""What the training loop does with held-out images, with a recipe's memory, and with its factor on learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import Stopping, classifier, toy_images, train

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.losses import ce
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable
from forefend.recipes.model_selection import LR_FACTOR
from forefend.recipes.schedules import constant
from forefend.runtime.run_folder import Run


@dataclass(frozen=True)
class Looking(Recipe):
    """Notes what it is shown, halves the rate after each epoch, and counts its images in its memory."""

    seen: dict[str, list[Any]] = field(default_factory=lambda: {"train": [], "held": [], "lr": [], "end": []})
    hold_out: float = 0.2
    epochs: int = 3
    batch_size: int = 16

    def players(self, networks: Networks) -> dict[str, Trainable]:
        sgd = torch.optim.SGD(networks.classifier.parameters(), 0.4)
        self.seen["optimizer"] = [sgd]
        return {"classifier": Trainable({"classifier": networks.classifier}, sgd, constant)}

    def remember(self, data: ImageDataset) -> Memory:
        self.seen["indices"] = [data.index]
        return {"visits": torch.zeros(40)}

    def updates(
        self, train: Networks, craft: Networks, batch: Batch, memory: Memory
    ) -> Iterator[tuple[str, torch.Tensor]]:
        self.seen["train"].append(batch)
        memory["visits"][batch.index] += 1
        yield "classifier", ce(train.classifier(batch.x), batch.y).mean()
        self.seen["lr"].append(self.seen["optimizer"][0].param_groups[0]["lr"])

    def validate(self, craft: Networks, batches: Iterable[Batch], memory: Memory) -> None:
        assert not craft.classifier.training
        self.seen["held"].append(list(batches))
        memory[LR_FACTOR] = memory.get(LR_FACTOR, torch.ones((), dtype=torch.float64)) / 2

    def finish(self, networks: Networks, memory: Memory) -> None:
        self.seen["end"].append({name: tensor.clone() for name, tensor in memory.items()})


def looked(**options: Any) -> dict[str, list[Any]]:
    recipe = Looking()
    train(recipe, toy_images(), Networks(classifier=classifier()), **options)
    return recipe.seen


def test_held_out_images_are_never_trained_on_and_all_are_shown_after_each_epoch() -> None:
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


def test_the_held_out_images_are_the_seed_s_and_their_draws_stay() -> None:
    def held(seed: int) -> list[int]:
        return [int(i) for batch in looked(seed=seed)["held"][0] for i in batch.index]

    assert held(0) == held(0) != held(1)
    first, second, _ = (batches[0] for batches in looked()["held"])
    assert torch.equal(first.rng.uniform(first.x), second.rng.uniform(second.x))
    assert not torch.equal(first.rng.uniform(first.x), first.rng.fold_in(purpose="train").uniform(first.x))
    assert [batches[0].progress for batches in looked()["held"]] == pytest.approx([1 / 3, 2 / 3, 1])


def test_the_factor_in_the_memory_multiplies_the_rate_and_a_resumed_run_keeps_it(tmp_path: Path) -> None:
    whole = looked()
    assert whole["lr"] == pytest.approx([0.4] * 2 + [0.2] * 2 + [0.1] * 2)
    run = Run(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        looked(run=run, augment=Stopping(5), checkpoint_every=0.0)
    rest = looked(run=run)
    assert rest["lr"] == pytest.approx([0.1])
    assert (rest["end"][0]["visits"] == whole["end"][0]["visits"]).all()
    assert float(rest["end"][0][LR_FACTOR]) == 1 / 8
    assert whole["end"][0]["visits"].sum() == 3 * 32


def test_test_images_choose_nothing() -> None:
    with pytest.raises(InputError, match="taken from training images, not from the test split"):
        train(Looking(), toy_images(split="test"), Networks(classifier=classifier()))
