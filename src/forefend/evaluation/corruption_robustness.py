"""Accuracy on corrupted images: subjects × corruptions × severities to records, and records to cells.

A corruption has no threat model and no adversary: an image is lost where the corrupted image is misclassified, whatever
became of the clean one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.dataset import image_digests
from forefend.evaluation import records
from forefend.evaluation.evaluate import asked_of
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.model_checks import check_model
from forefend.evaluation.records import Record
from forefend.evaluation.statistics import Z95, wilson
from forefend.models.fingerprint import architecture_digest, fingerprint, state_digest
from forefend.models.freezing import device_of, frozen
from forefend.runtime import files
from forefend.runtime.precision import full_float32
from forefend.runtime.rng import KeyedRNG

CLEAN = "none"
MEAN = "mean"
ALL = 0  # in place of a severity: the mean over those measured, or the clean images, which have none
NOT_COMPARABLE = "corrupted images made by forefend: not comparable with published mCE"
Corrupt = Callable[[Tensor, KeyedRNG], Tensor]


@dataclass(frozen=True)
class Condition:
    """One way in which the test images come.

    Args:
        corruption: its name; `none` for clean images.
        severity: 1 to 5; 0 for clean images.
        images: reads them, when their turn has come.
        corrupt: makes them corrupted, `(x, draw) -> x`; None where they are as they were read, clean or published.
    """

    corruption: str
    severity: int
    images: Callable[[], ImageDataset]
    corrupt: Corrupt | None = None

    def __str__(self) -> str:
        made = ", made" if self.corrupt else ""
        return self.corruption if self.corruption == CLEAN else f"{self.corruption} {self.severity}{made}"


@dataclass(frozen=True)
class CorruptionResult:
    """One accuracy on corrupted images; shares are in [0, 1].

    Args:
        classifier: name of the classifier.
        seen: whether it was a guide of the defense.
        defended: whether the defense stood in front of it.
        corruption: its name; `none` on clean images, `mean` for the mean over all corruptions and severities.
        severity: 1 to 5; 0 for the mean over a corruption's severities, and on clean images.
        made: whether any of the images were made here and are not the published ones.
        n: how many images were judged; a mean has as many, each counted with its own mean.
        accuracy: share classified correctly, or the mean of such shares.
        low: lower end of the 95% interval: Wilson's, and for a mean the normal one over images.
        high: upper end.
        seed: of the evaluation.
    """

    classifier: str
    seen: bool
    defended: bool
    corruption: str
    severity: int
    made: bool
    n: int
    accuracy: float
    low: float
    high: float
    seed: int


def measure(
    models: Sequence[EvaluatedModel],
    conditions: Sequence[Condition],
    *,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> list[CorruptionResult]:
    """Judge each subject on each image under each condition.

    With a folder, verdicts are appended to `records.jsonl` as they fall, an interrupted measurement goes on where it
    stopped, and `corruptions.json` holds the cells.

    Args:
        models: what to judge, each with a name of its own.
        conditions: the corruptions; all must be of the same images.
        folder: where the records go; None keeps nothing.
        seed: of the corruptions' random numbers.
        batch_size: images judged at once.

    Raises:
        InputError: images, labels, or what a subject returns cannot be used, conditions are of other images, or the
            folder holds another measurement's cells.
    """
    rows = [(model.name, model.defended) for model in models]
    if len(set(rows)) < len(rows):
        raise InputError("Two subjects have the same name: give each a name of its own, or their rows would mix.")
    before = [state_digest(model.network) for model in models]
    views = [frozen(model.network) for model in models]
    marks = [
        f"{fingerprint(view)}:{architecture_digest(view)}" for view in views
    ]  # before anyone asks them: some count
    courts = [_Court(*court) for court in zip(models, views, [seed] * len(views), marks, strict=True)]
    if folder:
        clean = conditions[0].images()
        asked = asked_of([(court.model, court.key(clean)) for court in courts], clean, [*map(str, conditions)], seed)
        asked.check(folder, "corruptions.json")
    path = folder / "records.jsonl" if folder else None
    done = records.read(path) if path else []
    hearing = _Hearing(courts, seed, batch_size, path, done)
    judged: list[tuple[Condition, list[dict[int, bool]]]] = []
    for condition in conditions:
        judged.append((condition, hearing.judge(condition)))
        if judged[0][1][0].keys() != judged[-1][1][0].keys():
            raise InputError(
                f"{condition} is of other images than {judged[0][0]}: measure them apart, or mend the set."
            )
    if before != [state_digest(model.network) for model in models]:
        raise RuntimeError("A classifier changed while it was measured: its verdicts must not be trusted.")
    found = [c for i, court in enumerate(courts) for c in court.cells([(k, lost[i]) for k, lost in judged])]
    if folder:
        save(folder, found)
        asked.keep(folder)
    return found


@dataclass(frozen=True)
class _Court:
    """One subject, and a frozen view of it to ask."""

    model: EvaluatedModel
    network: nn.Module
    seed: int
    own: str

    def key(self, images: ImageDataset) -> str:
        """What a record's verdict depends on beside condition, seed and image: the networks and the set."""
        return f"{images.name}/{images.split}:{self.own}"

    def lost(self, x: Tensor, y: Tensor) -> list[bool]:
        with full_float32(), torch.no_grad():
            wrong: Tensor = self.network(x.to(device_of(self.network))).argmax(1).cpu() != y
        return [bool(w) for w in wrong.tolist()]

    def cells(self, judged: Sequence[tuple[Condition, dict[int, bool]]]) -> list[CorruptionResult]:
        """The clean images, each corruption at each severity and its mean over them, and the mean over all."""
        clean = [self._cell(CLEAN, ALL, [pair]) for pair in judged if pair[0].corruption == CLEAN]
        corrupted = [pair for pair in judged if pair[0].corruption != CLEAN]
        found = []
        for name in dict.fromkeys(condition.corruption for condition, _ in corrupted):
            own = [pair for pair in corrupted if pair[0].corruption == name]
            found += [self._cell(name, pair[0].severity, [pair]) for pair in own]
            found.append(self._cell(name, ALL, own))
        return clean + found + ([self._cell(MEAN, ALL, corrupted)] if corrupted else [])

    def _cell(self, name: str, severity: int, pairs: Sequence[tuple[Condition, dict[int, bool]]]) -> CorruptionResult:
        scores = [fmean(not lost[index] for _, lost in pairs) for index in pairs[0][1]]
        accuracy, low, high = mean_interval(scores)
        return CorruptionResult(
            classifier=self.model.name,
            seen=self.model.seen,
            defended=self.model.defended,
            corruption=name,
            severity=severity,
            made=any(condition.corrupt is not None for condition, _ in pairs),
            n=len(scores),
            accuracy=accuracy,
            low=low,
            high=high,
            seed=self.seed,
        )


@dataclass(frozen=True)
class _Hearing:
    """Judges all subjects on one condition at a time, so that an image is corrupted once for all of them."""

    courts: Sequence[_Court]
    seed: int
    batch_size: int
    path: Path | None
    done: Sequence[Record]

    def judge(self, condition: Condition) -> list[dict[int, bool]]:
        """For each subject, whether each image is lost, by dataset index."""
        images, began = condition.images(), time.monotonic()
        for court in self.courts:
            check_model(court.network, images, court.model.name)
        digests: dict[int, str] = {}
        for part in torch.arange(len(images)).split(self.batch_size):
            x, y, index = images.batch(part)
            digests |= dict(zip(index.tolist(), image_digests(x, y), strict=True))
        known = [self._known(court.key(images), str(condition), digests) for court in self.courts]
        numbers = images.index.tolist()
        todo = torch.tensor([row for row, i in enumerate(numbers) if any(i not in k for k in known)], dtype=torch.int64)
        for part in todo.split(self.batch_size) if len(todo) else ():
            self._judge_batch(condition, images, part, known, digests)
        if len(todo):
            lost = ", ".join(str(sum(verdicts.values())) for verdicts in known)
            print(f"{condition}: {lost} of {len(images)} lost, {time.monotonic() - began:.0f} s", flush=True)
        return [{i: verdicts[i] for i in numbers} for verdicts in known]

    def _judge_batch(
        self,
        condition: Condition,
        images: ImageDataset,
        part: Tensor,
        known: Sequence[dict[int, bool]],
        digests: dict[int, str],
    ) -> None:
        x, y, index = images.batch(part)
        if condition.corrupt:
            x = condition.corrupt(x, KeyedRNG(index, self.seed, "corruption"))
        for court, verdicts in zip(self.courts, known, strict=True):
            if all(i in verdicts for i in index.tolist()):
                continue
            marks = [digests[i] for i in index.tolist()]
            lost = court.lost(x, y)
            record = Record(court.key(images), str(condition), self.seed, index.tolist(), lost, marks)
            if self.path:
                files.make_folder(self.path.parent)
                files.append(self.path, record)
            verdicts |= dict(zip(record.index, lost, strict=True))

    def _known(self, key: str, trial: str, digests: dict[int, str]) -> dict[int, bool]:
        """The verdicts on record, of images that are still what they were."""
        known: dict[int, bool] = {}
        for record in self.done:
            if (record.model, record.trial, record.seed) == (key, trial, self.seed):
                marked = zip(record.index, record.lost, record.images, strict=False)
                known |= {i: lost for i, lost, mark in marked if digests.get(i) == mark}
        return known


def mean_interval(scores: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% interval of images' scores in [0, 1]: Wilson's where all are 0 or 1, else the normal one."""
    n, mean = len(scores), fmean(scores)
    if set(scores) <= {0.0, 1.0}:
        return mean, *wilson(round(sum(scores)), n)
    spread = Z95 * stdev(scores) / n**0.5 if n > 1 else 1.0
    return mean, max(0.0, mean - spread), min(1.0, mean + spread)


def save(folder: Path, cells: Sequence[CorruptionResult]) -> None:
    """Write `corruptions.json`: the cells, and whether they may be compared with published ones."""
    note = NOT_COMPARABLE if any(cell.made for cell in cells) else "published corrupted images"
    files.write_json(folder / "corruptions.json", {"images": note, "cells": [asdict(cell) for cell in cells]})


def load(folder: Path) -> list[CorruptionResult]:
    """The cells that a measurement left in `folder`.

    Raises:
        InputError: there are none, or they are not ours.
    """
    held: Any = files.read_json(folder / "corruptions.json")
    rows, wanted = held.get("cells") if isinstance(held, dict) else None, {f.name for f in fields(CorruptionResult)}
    if not isinstance(rows, list) or any(not isinstance(row, dict) or set(row) != wanted for row in rows):
        raise InputError(f"{folder}/corruptions.json is no list of cells: measure again to make it anew.")
    return [CorruptionResult(**row) for row in rows]
