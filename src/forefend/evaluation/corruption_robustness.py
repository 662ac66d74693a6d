"""Accuracy on corrupted images, made by forefend or published.

There is no adversary: an image counts where its corrupted form is misclassified, whatever the
verdict on the clean one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError, as_integer, predictions
from forefend.evaluation import corruption_conditions, corruption_results, records
from forefend.evaluation.corruption_conditions import Condition
from forefend.evaluation.corruption_results import CorruptionResults, CorruptionRow
from forefend.evaluation.evaluated_model import EvaluatedModel, as_models
from forefend.evaluation.given_images import images_for
from forefend.evaluation.identification import KnownModels, examine
from forefend.evaluation.manifest import manifest_of
from forefend.evaluation.model_checks import check_model, unchanged
from forefend.evaluation.output_stability import StableOutputs
from forefend.evaluation.records import Record
from forefend.evaluation.result_rows import check_names
from forefend.evaluation.result_store import (
    DigestedImages,
    ResultStore,
    key_of,
    open_store,
    record_of,
)
from forefend.models.freezing import device_of, frozen, gradients_enabled
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.distributed import process_group
from forefend.runtime.precision import full_float32
from forefend.runtime.rng import KeyedRNG, torch_seed


@gradients_enabled()
def corruptions(
    models: nn.Module | EvaluatedModel | Sequence[EvaluatedModel],
    data: Any,
    *,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    published: str | Path | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> CorruptionResults:
    """Measure the accuracy of models on corrupted test images.

    With a folder, verdicts are appended to `records.jsonl` as they are found, an interrupted
    measurement resumes, and `corruptions.json` holds the results.

    Args:
        models: a network from images in [0, 1] to logits, or models with names.
        data: clean test images: a pair (x, y), a torch Dataset or DataLoader, a Hugging Face Dataset,
            or what `forefend.data.load` returns.
        corruptions: their names, as in `forefend.data.corruptions.CORRUPTIONS`; None for all that
            fit the images.
        severities: of 1 to 5.
        published: the folder of CIFAR-10-C, CIFAR-100-C or ImageNet-C; None corrupts the images
            here.
        folder: where the records go; None keeps nothing.
        seed: the seed of the corruptions' random numbers.
        batch_size: images classified at once.

    Returns:
        Results, a list of `CorruptionResult`; `print` shows a table for each model.

    Raises:
        InputError: models, images or corruptions cannot be used, or the folder holds other results.
    """
    models, names = as_models(models), corruptions or ()
    images = images_for(models, data)
    if published:
        root = Path(published)
        size = None if any(root.glob("*.npy")) else images.shape[1]
        conditions = corruption_conditions.published(root, images, names, severities, size)
    else:
        conditions = corruption_conditions.generated(images, names, severities)
    return measure(models, conditions, folder=folder, seed=seed, batch_size=batch_size)


@gradients_enabled()
def measure(
    models: Sequence[EvaluatedModel],
    conditions: Sequence[Condition],
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> CorruptionResults:
    """Measure the accuracy of models in several conditions, of which the first is clean.

    Args:
        models: models with different names.
        conditions: forms of the same images.
        folder: where the records go; None keeps nothing.
        seed: the seed of the corruptions' random numbers.
        batch_size: images classified at once.

    Raises:
        InputError: models or images cannot be used, conditions are of other images, or the folder
            holds other results.
    """
    models, batch_size, folder = (
        as_models(models),
        as_integer(batch_size, "batch_size"),
        Path(folder) if folder else None,
    )
    views = [frozen(model.network) for model in models]
    clean, known = conditions[0].images(), KnownModels([folder])
    examined = [examine(view, clean, model.name) for model, view in zip(models, views, strict=True)]
    identities = [known.identify(each, model.name) for model, each in zip(models, examined, strict=True)]
    keys = {model.title: key_of(identity, clean) for model, identity in zip(models, identities, strict=True)}
    check_names([model.name for model in models])
    manifest = manifest_of(keys, clean, [*map(str, conditions)], seed)
    if folder:
        manifest.check(folder, "corruptions.json")
    found = []
    with unchanged(models), open_store(folder, "records", records.read) as store, torch_seed(seed):
        known.save(folder)
        triples = zip(models, views, examined, strict=True)
        outputs = [StableOutputs(view, one.x, model.name) for model, view, one in triples]
        for condition in conditions:
            one = _Classification(models, views, identities, condition, store, seed, batch_size, outputs)
            found.append(one.verdicts())
            if found[0][0].keys() != found[-1][0].keys():
                raise InputError(f"{condition} is of other images than {conditions[0]}: measure them apart.")
    forms = [(condition.corruption, condition.severity, condition.corrupt is not None) for condition in conditions]
    results = CorruptionResults()
    for number, model in enumerate(models):
        row = CorruptionRow(model.name, model.seen, model.defended, seed)
        results += row.count(forms, [verdicts[number] for verdicts in found])
    if folder and not process_group().rank:
        manifest.check(folder, "corruptions.json")  # again, as another evaluation may have ended in the meantime
        corruption_results.save(folder, results)
        manifest.save(folder)
    return results


@dataclass(frozen=True)
class _Classification:
    """All models on the images of one condition, each corrupted once for all of them."""

    models: Sequence[EvaluatedModel]
    views: Sequence[nn.Module]
    identities: Sequence[str]
    condition: Condition
    store: ResultStore
    seed: int
    batch_size: int
    outputs: Sequence[StableOutputs]

    def verdicts(self) -> list[dict[int, bool]]:
        """Return for each model whether each image is misclassified, by dataset index."""
        images = DigestedImages(self.condition.images())
        for model, view in zip(self.models, self.views, strict=True):
            check_model(view, images.images, model.name)
        trial, index = str(self.condition), images.images.index.tolist()
        keys = [key_of(identity, images.images) for identity in self.identities]
        recorded = [self.store.verdicts(key, trial, self.seed, images) for key in keys]
        known = {i: [those[i] for those in recorded] for i in index if all(i in those for those in recorded)}

        def lines_of(found: dict[int, list[bool]]) -> list[Record]:
            lines = []
            for each in self.outputs:
                each.check()
            for number, (key, those) in enumerate(zip(keys, recorded, strict=True)):
                if new := {i: verdicts[number] for i, verdicts in found.items() if i not in those}:
                    lines.append(record_of(key, trial, self.seed, new, images))
            return lines

        found = self.store.complete(
            trial,
            images,
            index,
            known,
            partial(self._classify, images),
            lines_of,
            batch_size=self.batch_size,
            summary=lambda found: (
                f"{', '.join(map(str, map(sum, zip(*found.values(), strict=True))))} of {len(found)} misclassified"
            ),
        )
        return [{i: verdicts[number] for i, verdicts in found.items()} for number in range(len(keys))]

    def _classify(self, images: DigestedImages, rows: Tensor) -> Iterator[dict[int, list[bool]]]:
        def classify(part: Tensor) -> dict[int, list[bool]]:
            x, y, index = images.fetch(part)
            if self.condition.corrupt:
                x = self.condition.corrupt(x, KeyedRNG(index, self.seed, "corruption"))
            with full_float32(), torch.no_grad():
                wrong = [predictions(view(x.to(device_of(view))), index).cpu() != y.cpu() for view in self.views]
            return dict(zip(index.tolist(), torch.stack(wrong, 1).tolist(), strict=True))

        return AdaptiveBatchSize(self.batch_size).map(rows, classify)
