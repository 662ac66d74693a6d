"""Evaluate: subjects × trials × images to records, and records to a summary that anyone can recount."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from forefend.checks import InputError, as_integer, check_clean_accuracy, check_data
from forefend.data import ImageDataset
from forefend.data.dataset import dataset_digest
from forefend.evaluation import records, results
from forefend.evaluation.attack_runner import Job, Verdicts, trial_seed
from forefend.evaluation.evaluated_model import EvaluatedModel, evaluated_model, row_of
from forefend.evaluation.fast_trials import falls_back, settled
from forefend.evaluation.manifest import Manifest
from forefend.evaluation.model_checks import check_model, check_suite
from forefend.evaluation.records import Record
from forefend.evaluation.result_store import ResultStore, key_of
from forefend.evaluation.results import CLEAN, Result, Stand, Verdict
from forefend.evaluation.trial import Suite, Trial, starts_of, trials_of
from forefend.models.fingerprint import state_digest
from forefend.models.freezing import channels_last_copy, device_of
from forefend.runtime import files
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.distributed import ProcessGroup, process_group
from forefend.runtime.precision import full_float32, report_fallback
from forefend.runtime.rng import torch_seed


def evaluate(
    models: nn.Module | Sequence[EvaluatedModel],
    images: ImageDataset,
    suite: Suite,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    allow_weak: bool = False,
) -> list[Result]:
    """Judge each subject on each image under each trial.

    With a folder, verdicts are appended to `records.jsonl` as they fall, an interrupted evaluation goes on where it
    stopped, and `summary.json` holds the cells, `evaluation.json` what they are of.

    Args:
        models: what to judge; a bare network stands for itself.
        images: test images.
        suite: the trials, such as `suites.quick(Linf("8/255"))`; none for clean accuracy alone.
        folder: where the records go; None keeps nothing.
        seed: of the attacks' random starts.
        batch_size: images attacked at once.
        allow_weak: go on although a classifier is near chance on clean images.

    Raises:
        InputError: images, labels or what a subject returns cannot be used, a classifier is near chance, or the folder
            holds another evaluation's summary.
        RuntimeError: an attack left its threat model.
    """
    if isinstance(models, nn.Module):
        models = [evaluated_model(models)]
    if not isinstance(models, Sequence) or not all(isinstance(model, EvaluatedModel) for model in models):
        raise InputError(
            f"A torch module or a list of Subjects is judged, not a {type(models).__name__}: wrap a function in a "
            "module, and give several networks as forefend.Subject(name, network) each."
        )
    folder = Path(folder) if folder else None
    suite, seed, batch_size = trials_of(suite), as_integer(seed, "seed"), as_integer(batch_size, "batch_size")
    check_data(images, "the images")
    with _courts(models, images, suite, folder, seed, batch_size) as courts:
        if folder:
            asked = _asked([(court.model, court.docket.key) for court in courts], images, suite, seed)
            asked.check(folder)
        found = [cell for court in courts for cell in court.cells(suite, allow_weak)]
    if folder and not process_group().rank:
        results.save(folder, found)
        asked.keep(folder)
    return found


def verdicts(
    model: EvaluatedModel,
    images: ImageDataset,
    suite: Suite,
    *,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[Verdict]:
    """Which images each trial breaks, by dataset index: what `evaluate` counts, for one subject.

    Args:
        model: what to judge.
        images: test images.
        suite: the trials.
        folder: where the records go; None keeps nothing.
        seed: of the attacks' random numbers.
        batch_size: images attacked at once.

    Returns:
        The images misclassified without an attack, then those that each trial breaks.
    """
    suite = trials_of(suite)
    with _courts([model], images, suite, folder, seed, batch_size) as (court,):
        return court.verdicts(suite, allow_weak=True)


@contextmanager
def _courts(
    models: Sequence[EvaluatedModel],
    images: ImageDataset,
    suite: Suite,
    folder: Path | None,
    seed: int,
    batch_size: int,
) -> Iterator[list[_Court]]:
    """A court for each subject, which knows what is on record; afterwards all records are in one file."""
    _check_names(models, suite)
    among = process_group()
    before = [state_digest(model.network) for model in models]
    views = [replace(model, network=channels_last_copy(model.network)) for model in models]
    keys = [key_of(view.network, images) for view in views]
    _check_apart(views, keys)
    with torch_seed(seed):
        _check_views(views, images, suite)  # all are looked at before anything is written
    old = _on_record(folder, among) if folder else []
    for device in {device_of(view.network) for view in views}:
        if falls_back(suite, device):
            report_fallback("The copies that propose compute", "bf16", device)
    # Whatever draws from torch's own generators draws the same each time, and the caller's are untouched.
    with full_float32(), torch_seed(seed):
        yield [
            _Court(view, ResultStore(view.network, images, seed, folder, old, among, batch_size, key))
            for view, key in zip(views, keys, strict=True)
        ]
    if before != [state_digest(model.network) for model in models]:
        raise RuntimeError("A classifier changed while it was attacked: its verdicts must not be trusted.")
    among.wait()
    if folder and not among.rank:
        records.gather(folder)
    among.wait()


def _check_apart(models: Sequence[EvaluatedModel], keys: Sequence[str]) -> None:
    """Refuse subjects that records could not tell apart."""
    twice = [model for model, key in zip(models, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise InputError(
            f"{twice[0].name} and {twice[1].name} are the same network in weights and form: judge it once, by one name."
        )


def check(models: Sequence[EvaluatedModel], images: ImageDataset, suite: Suite, *, folder: Path, seed: int) -> None:
    """Refuse images, subjects, or a suite for them that cannot be used, before any work.

    Args:
        models: what would be judged.
        images: test images.
        suite: the trials.
        folder: where records and summary would go.
        seed: of the evaluation.

    Raises:
        InputError: as `evaluate` would.
    """
    views = [replace(model, network=channels_last_copy(model.network)) for model in models]
    _asked([(view, key_of(view.network, images)) for view in views], images, suite, seed).check(folder)
    with torch_seed(0):
        _check_views(views, images, suite)


def _asked(views: Sequence[tuple[EvaluatedModel, str]], images: ImageDataset, suite: Suite, seed: int) -> Manifest:
    """What the summary will count; `views` are the subjects with the keys of their records."""
    trials = [str(settled(trial, device_of(view.network))) for view, _ in views for trial in suite]
    return asked_of(views, images, trials, seed)


def asked_of(
    views: Sequence[tuple[EvaluatedModel, str]], images: ImageDataset, trials: Sequence[str], seed: int
) -> Manifest:
    """What a summary counts.

    Args:
        views: the subjects, with the keys of their records.
        images: what they are judged on.
        trials: under what, each by its identity.
        seed: of the evaluation.
    """
    models = {row_of(view): key for view, key in views}
    index = " ".join(map(str, images.index.tolist()))
    return Manifest(models, list(dict.fromkeys(trials)), len(images), index, dataset_digest(images), seed)


def _check_views(views: Sequence[EvaluatedModel], images: ImageDataset, suite: Suite) -> None:
    for view in views:
        x = check_model(view.network, images, view.name)
        check_suite(view.network, suite, x, view.name)


def _on_record(folder: Path, among: ProcessGroup) -> list[Record]:
    """What earlier evaluations wrote into the folder, the same in every process."""
    if not among.rank:
        files.make_folder(folder)
        records.gather(folder)
    among.wait()
    old = records.read(records.part(folder, 0))
    among.wait()  # nobody writes before all have read
    return old


def _check_names(models: Sequence[EvaluatedModel], suite: Suite) -> None:
    """Refuse what could not be told apart in tables or records."""
    rows = [(model.name, model.defended) for model in models]
    twice = next((name for name, defended in rows if rows.count((name, defended)) > 1), None)
    if twice is not None:
        raise InputError(f"Two subjects are called {twice!r}: give each a name of its own, or their rows would mix.")
    for identity in map(str, suite):
        if "<lambda>" in identity or " at 0x" in identity:
            raise InputError(
                f"The trial {identity} has no stable name: give its loss or attack one, by def or __str__."
            )


@dataclass(frozen=True)
class _Court:
    """One subject's evaluation."""

    model: EvaluatedModel
    docket: ResultStore

    def cells(self, suite: Suite, allow_weak: bool) -> list[Result]:
        """The verdicts, counted."""
        clean, *attacked = self.verdicts(suite, allow_weak)
        images, model = self.docket.images, self.model
        stand = Stand(model.name, model.seen, model.defended, len(images), self.docket.seed)
        return results.cells(stand, clean.lost, attacked)

    def verdicts(self, suite: Suite, allow_weak: bool) -> list[Verdict]:
        """Clean images, then every trial on what stands: a misclassified image is lost to every attack."""
        images = self.docket.images
        clean = self.docket.verdicts(CLEAN, self._title("clean"), images.index.tolist(), self._clean)
        accuracy = (len(clean) - sum(clean.values())) / len(clean)
        if not (allow_weak or self.model.defended):
            check_clean_accuracy(accuracy, len(images.classes), len(clean), self.model.name)
        standing = [index for index in clean if not clean[index]]
        wrong = frozenset(clean) - frozenset(standing)
        found = [Verdict(CLEAN, "", 0.0, wrong)]
        device = device_of(self.model.network)
        for trial in (settled(trial, device) for trial in suite):
            run = partial(trial.run, self._job(trial))
            judged = self.docket.verdicts(str(trial), self._title(str(trial)), standing, run)
            lost = wrong | {index for index in judged if judged[index]}
            found.append(Verdict(trial.name, trial.threat.norm, trial.threat.radius, lost))
        return found

    def _job(self, trial: Trial) -> Job:
        docket = self.docket
        return Job(
            name=starts_of(trial),
            attack=trial.attack,
            threat=trial.threat,
            restarts=trial.restarts,
            f=trial.sees(self.model.network),
            wrong=self._wrong,
            fetch=docket.fetch,
            room=AdaptiveBatchSize(docket.batch_size),
            seed=docket.seed,
        )

    def _wrong(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return self.model.network(x).argmax(1) != y

    def _clean(self, rows: Tensor) -> Iterator[Verdicts]:
        def judged(part: Tensor) -> Verdicts:
            x, y, index = self.docket.fetch(part)
            with trial_seed(CLEAN, index, self.docket.seed):
                return index.tolist(), self._wrong(x, y).tolist()

        return AdaptiveBatchSize(self.docket.batch_size).map(rows, judged)

    def _title(self, trial: str) -> str:
        return f"{row_of(self.model)}: {trial}"
