"""One model under evaluation: its clean predictions, and the verdicts of each trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from forefend.checks import predictions
from forefend.evaluation.attack_runner import Job, trial_seed
from forefend.evaluation.clean_accuracy import CleanPredictions, classifier_alone, labels_of
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.moved_images import MovedImages
from forefend.evaluation.movement import Movement, mean_of
from forefend.evaluation.output_stability import StableOutputs
from forefend.evaluation.records import Record
from forefend.evaluation.result_store import DigestedImages, ResultStore, record_of
from forefend.evaluation.results import CLEAN
from forefend.evaluation.trial import Suite, Trial
from forefend.models.freezing import device_of
from forefend.models.output_checks import check_clean_accuracy
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.distributed import process_group


@dataclass(frozen=True)
class Target:
    """One model of a prepared evaluation."""

    model: EvaluatedModel  # with a frozen copy of the network
    key: str  # of its records
    trials: Suite  # as they run on its device
    original: nn.Module
    state: str  # the digest of the original, which must not change
    outputs: StableOutputs


@dataclass(frozen=True)
class Outcome:
    """What was found of one model.

    Args:
        clean: its predictions on clean images.
        warnings: signs in them that it does not work.
        verdicts: for clean images and each trial, whether each image is misclassified, by dataset
            index.
        movement: likewise, how far a defended model's images are moved; None where it was not measured.
    """

    clean: CleanPredictions
    warnings: Sequence[str]
    verdicts: list[dict[int, bool]]
    movement: list[Movement | None]


@dataclass(frozen=True)
class Run:
    """One model under attack."""

    target: Target
    store: ResultStore
    images: DigestedImages
    seed: int
    batch_size: int

    def outcome(self, allow_weak: bool, alone: CleanPredictions | None, warn: Callable[[str], object]) -> Outcome:
        """Classify clean images, then attack those that are classified correctly.

        Args:
            allow_weak: evaluate a classifier that is near chance on clean images too.
            alone: clean predictions of its classifier without the defense, where they are known.
            warn: receives the signs that it does not work, before the attacks.
        """
        model, images = self.target.model, self.images.images
        predicted, moved = self._clean()
        clean = predicted.misclassified()
        if not (allow_weak or model.defended):
            accuracy = (len(clean) - sum(clean.values())) / len(clean)
            check_clean_accuracy(accuracy, len(images.classes), len(clean), model.name)
        warnings = predicted.faults(model.title, alone or classifier_alone(model.network, images))
        for warning in warnings if not process_group().rank else ():
            warn(f"WARNING: {warning}")
        correct = [index for index, wrong in clean.items() if not wrong]
        found, movement = [clean], [moved]
        for trial in self.target.trials:
            verdicts, moved = self._attack(trial, correct)
            found.append(clean | verdicts)
            movement.append(moved)
        return Outcome(predicted, warnings, found, movement)

    def _attack(self, attack: Trial, index: Sequence[int]) -> tuple[dict[int, bool], Movement | None]:
        key, images, trial = self.target.key, self.images, str(attack)
        moved = MovedImages(self.target.model.network, images)
        run = partial(attack.run, self.job(attack, moved))
        found = self.store.complete(
            f"{self.target.model.title}: {trial}",
            images,
            index,
            self.store.verdicts(key, trial, self.seed, images),
            lambda rows: (dict(zip(*part, strict=True)) for part in run(rows)),
            partial(self._lines, trial, moved),
            batch_size=self.batch_size,
            summary=lambda found: f"{sum(found.values())} of {len(found)} misclassified",
        )
        return found, self._movement(trial, moved, index)

    def _lines(
        self, trial: str, moved: MovedImages, found: dict[int, bool], predicted: Iterable[int] = ()
    ) -> list[Record]:
        self.target.outputs.check()
        return [record_of(self.target.key, trial, self.seed, found, self.images, predicted, moved.found)]

    def _movement(self, trial: str, moved: MovedImages, index: Sequence[int]) -> Movement | None:
        recorded = self.store.moved(self.target.key, trial, self.seed, self.images)
        everything = recorded | self.store.processes.all_of(moved.found)
        return mean_of([everything[i] for i in index if i in everything])

    def job(self, trial: Trial, moved: MovedImages) -> Job:
        """Return what the attack of a trial runs with; `moved` receives how far its images are moved."""
        network = self.target.model.network
        return Job(
            name=trial.rng_key,
            attack=trial.attack,
            threat=trial.threat,
            restarts=trial.restarts,
            f=trial.access(network),
            misclassified=partial(self._misclassified, moved),
            fetch=partial(self.images.fetch, device=device_of(network)),
            batch_size=AdaptiveBatchSize(self.batch_size),
            seed=self.seed,
        )

    def _misclassified(self, moved: MovedImages, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        moved.measure(x, index)
        with torch.no_grad():
            return predictions(self.target.model.network(x), index) != y

    def _clean(self) -> tuple[CleanPredictions, Movement | None]:
        key, images, network = self.target.key, self.images, self.target.model.network
        labels, moved = labels_of(images.images), MovedImages(network, images)

        def classify(part: Tensor) -> dict[int, int]:
            x, _, index = images.fetch(part, device_of(network))
            moved.measure(x, index)
            with trial_seed(CLEAN, index, self.seed), torch.no_grad():
                return dict(zip(index.tolist(), predictions(network(x), index).tolist(), strict=True))

        def lines_of(found: dict[int, int]) -> list[Record]:
            verdicts = {index: predicted != labels[index] for index, predicted in found.items()}
            return self._lines(CLEAN, moved, verdicts, found.values())

        found = self.store.complete(
            f"{self.target.model.title}: {CLEAN}",
            images,
            list(labels),
            self.store.predictions(key, CLEAN, self.seed, images),
            lambda rows: AdaptiveBatchSize(self.batch_size).map(rows, classify),
            lines_of,
            batch_size=self.batch_size,
            summary=lambda found: f"{sum(found[i] != labels[i] for i in found)} of {len(found)} misclassified",
        )
        return CleanPredictions(found, labels, images.images.classes), self._movement(CLEAN, moved, list(labels))
