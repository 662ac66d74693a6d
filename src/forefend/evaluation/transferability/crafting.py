"""Craft the adversarial images of each source once, and judge them on every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forefend.checks import predictions
from forefend.evaluation import records
from forefend.evaluation.attack_runner import obey, trial_seed
from forefend.evaluation.evaluate import Evaluation
from forefend.evaluation.records import Record
from forefend.evaluation.result_store import DigestedImages, ResultStore, open_store, record_of
from forefend.evaluation.trial import Trial
from forefend.models.freezing import device_of, gradients_enabled
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.precision import full_float32
from forefend.runtime.rng import KeyedRNG, torch_seed

Verdicts = tuple[bool, ...]  # whether each model misclassifies an image


@gradients_enabled()
def craft_once(evaluation: Evaluation) -> None:
    """Record the verdicts of all models on images that are crafted once for each trial.

    They are the verdicts that `Evaluation.outcomes` would find, which crafts the images anew for each model.

    Args:
        evaluation: a prepared evaluation in a folder; its trials have one restart, run all steps and see a source.
    """
    images = DigestedImages(evaluation.images)
    with open_store(evaluation.folder, "records", records.read) as store, full_float32(), torch_seed(evaluation.seed):
        evaluation.known.save(evaluation.folder)
        for trial in evaluation.targets[0].trials:
            _Crafting(evaluation, store, images, trial).complete()


@dataclass(frozen=True)
class _Crafting:
    """One trial against all models."""

    evaluation: Evaluation
    store: ResultStore
    images: DigestedImages
    trial: Trial

    def complete(self) -> None:
        """Craft the images that lack a verdict of some model, and record those that are missing."""
        recorded = [
            self.store.verdicts(target.key, str(self.trial), self.evaluation.seed, self.images)
            for target in self.evaluation.targets
        ]
        common = set.intersection(*map(set, recorded))
        self.store.complete(
            str(self.trial),
            self.images,
            self.evaluation.images.index.tolist(),
            {number: tuple(verdicts[number] for verdicts in recorded) for number in common},
            lambda rows: AdaptiveBatchSize(self.evaluation.batch_size).map(rows, self._judge),
            lambda found: self._lines(found, recorded),
            batch_size=self.evaluation.batch_size,
            summary=lambda found: f"{sum(map(sum, found.values()))} of {sum(map(len, found.values()))} misclassified",
        )

    def _judge(self, rows: Tensor) -> dict[int, Verdicts]:
        trial, networks = self.trial, [target.model.network for target in self.evaluation.targets]
        x, y, index = self.images.fetch(rows, device_of(networks[0]))
        with trial_seed(trial.rng_key, index, self.evaluation.seed):
            rng = KeyedRNG(index, self.evaluation.seed, trial.rng_key, 0)
            x_adv = obey(trial.threat, trial.attack(trial.access(networks[0]), x, y, rng=rng), x, str(trial))
            with torch.no_grad():
                wrong = torch.stack([predictions(network(x_adv), index) != y for network in networks], 1)
        return dict(zip(index.tolist(), map(tuple, wrong.tolist()), strict=True))

    def _lines(self, found: Mapping[int, Verdicts], recorded: Sequence[Mapping[int, bool]]) -> list[Record]:
        lines = []
        for place, target in enumerate(self.evaluation.targets):
            target.outputs.check()
            new = {number: each[place] for number, each in found.items() if number not in recorded[place]}
            if new:
                lines.append(record_of(target.key, str(self.trial), self.evaluation.seed, new, self.images))
        return lines
