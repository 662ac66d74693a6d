"""Evaluate models under trials: verdicts on each image, recorded and resumed, and results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from forefend.checks import InputError, as_integer
from forefend.data import ImageDataset
from forefend.evaluation import black_boxes, failure_pictures, records, results
from forefend.evaluation.clean_accuracy import is_named
from forefend.evaluation.evaluated_model import EvaluatedModel, as_models
from forefend.evaluation.given_images import images_for
from forefend.evaluation.identification import KnownModels, examine
from forefend.evaluation.manifest import Counted, Manifest, manifest_of
from forefend.evaluation.model_checks import check_classes, check_identities, check_suite
from forefend.evaluation.model_run import Outcome, Run, Target
from forefend.evaluation.output_stability import StableOutputs
from forefend.evaluation.result_rows import check_names
from forefend.evaluation.result_store import DigestedImages, hold, key_of, open_store
from forefend.evaluation.results import CLEAN, Results, Row
from forefend.evaluation.suites import suite_named
from forefend.evaluation.trial import Suite, Terms, Trial, as_trials, surrogates_of
from forefend.models.fingerprint import state_digest
from forefend.models.freezing import channels_last_copy, device_of, frozen, gradients_enabled
from forefend.runtime.distributed import process_group
from forefend.runtime.precision import full_float32, report_fallback
from forefend.runtime.rng import torch_seed
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_models


@gradients_enabled()
def evaluate(
    models: nn.Module | EvaluatedModel | Sequence[EvaluatedModel],
    data: Any,
    suite: str | Iterable[Trial] | None = None,
    threat: str | ThreatModel | Sequence[str | ThreatModel] = "Linf:8/255",
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
    allow_weak: bool = False,
    pictures: int = 0,
) -> Results:
    """Measure the accuracy of models on clean and on attacked images.

    With a folder, verdicts are appended to `records.jsonl` as they are found, an interrupted
    evaluation resumes, and `summary.json` holds the results.

    Args:
        models: a network from images in [0, 1] to logits, or models with names.
        data: test images: a pair (x, y), a torch Dataset or DataLoader, a Hugging Face Dataset, or
            what `forefend.data.load` returns.
        suite: the name of a suite, or a list of trials; an empty list measures clean accuracy
            alone. None is `quick`, and `black-box` for black boxes.
        threat: the threat models that a named suite attacks in, as objects or names; unused for a
            list of trials.
        folder: where the records go; None keeps nothing.
        seed: the seed of the attacks' random starts.
        batch_size: images attacked at once.
        allow_weak: evaluate a classifier that is near chance on clean images too.
        pictures: the number of failures whose images are kept in the folder, for the evidence page.

    Returns:
        Results, a list of `Result`; `print` shows them as a table.

    Raises:
        InputError: images, labels, models or suite cannot be used, a classifier is near chance, or
            the folder holds the summary of another evaluation.
        RuntimeError: an attack left its threat model.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    >>> data = torch.rand(8, 1, 4, 4), torch.tensor([0, 1] * 4)
    >>> results = evaluate(network, data, "quick", "Linf:8/255", allow_weak=True)  # doctest: +ELLIPSIS
    classifier: none: ...
    >>> [result.attack for result in results]
    ['none', 'FGSM', 'PGD-20', 'PGD-20 margin', 'worst']
    """
    prepared = prepare(models, data, suite, threat, folder=folder, seed=seed, batch_size=batch_size)
    return prepared.run(allow_weak=allow_weak, pictures=as_integer(pictures, "pictures"))


@gradients_enabled()
def verdicts(
    model: EvaluatedModel,
    images: ImageDataset,
    suite: Suite,
    *,
    folder: Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> list[dict[int, bool]]:
    """Return for clean images and each trial whether each image is misclassified, by dataset index.

    Images that are misclassified without an attack are misclassified under every trial. The
    arguments are those of `evaluate`; the folder gets no summary.
    """
    (found,) = _prepare([model], images, as_trials(suite), folder, seed, batch_size).outcomes(allow_weak=True, warn=str)
    return found.verdicts


@gradients_enabled()
def prepare(
    models: nn.Module | EvaluatedModel | Sequence[EvaluatedModel],
    data: Any,
    suite: str | Iterable[Trial] | None = None,
    threat: str | ThreatModel | Sequence[str | ThreatModel] = "Linf:8/255",
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> Evaluation:
    """Check everything that an evaluation needs, once, and return the evaluation ready to run.

    The arguments and exceptions are those of `evaluate`. Nothing is written, and no attack is run.
    """
    models = as_models(models)
    images = images_for(models, data)
    seed, batch_size = as_integer(seed, "seed"), as_integer(batch_size, "batch_size")
    suite = black_boxes.default_suite(models) if suite is None else suite
    if isinstance(suite, str):
        terms = Terms(as_threat_models(threat), len(images.classes), scores=black_boxes.gives_scores(models))
        suite = suite_named(suite)(terms)
    prepared = _prepare(models, images, as_trials(suite), Path(folder) if folder else None, seed, batch_size)
    if folder:
        prepared.manifest.check(Path(folder))
    return prepared


def _prepare(
    models: Sequence[EvaluatedModel],
    images: ImageDataset,
    trials: Suite,
    folder: Path | None,
    seed: int,
    batch_size: int,
) -> Evaluation:
    check_identities(trials)
    check_classes(trials, len(images.classes))
    black_boxes.check_knowledge(models, trials)
    known = KnownModels([folder])
    for surrogate in surrogates_of(trials):
        examined = examine(frozen(surrogate.network), images, surrogate.name)
        known.remember_surrogate(examined, surrogate.name)
    targets: list[Target] = []
    notes: list[str] = []
    for model in models:
        view, state = replace(model, network=channels_last_copy(model.network)), state_digest(model.network)
        examined = examine(view.network, images, model.name)
        with torch_seed(seed):
            check_suite(view.network, trials, examined.x, model.name)
        key = key_of(known.identify(examined, model.name), images)
        if twin := next((target for target in targets if target.key == key), None):
            raise InputError(
                f"{twin.model.name} and {model.name} are the same network in weights and outputs: evaluate it once, "
                "under one name."
            )
        notes += black_boxes.notes_on(model, trials, len(images), examined.same_margin)
        outputs = StableOutputs(view.network, examined.x, model.name)
        on_device = [black_boxes.as_seen(trial, model).on(device_of(view.network)) for trial in trials]
        targets.append(Target(view, key, on_device, model.network, state, outputs))
    check_names([*(model.name for model in models), *(trial.name for trial in trials)])
    keys = {target.model.title: target.key for target in targets}
    manifest = manifest_of(keys, images, [str(trial) for target in targets for trial in target.trials], seed)
    return Evaluation(targets, images, trials, folder, seed, batch_size, manifest, known, list(dict.fromkeys(notes)))


@dataclass(frozen=True)
class Evaluation:
    """A checked evaluation, ready to run."""

    targets: Sequence[Target]
    images: ImageDataset
    trials: Suite
    folder: Path | None
    seed: int
    batch_size: int
    manifest: Manifest
    known: KnownModels  # with the models to evaluate
    notes: Sequence[str] = ()  # what must be told of black boxes

    @property
    def models(self) -> list[EvaluatedModel]:
        """The models, frozen."""
        return [target.model for target in self.targets]

    @gradients_enabled()
    def run(self, *, allow_weak: bool = False, pictures: int = 0) -> Results:
        """Attack all models and return the results; write the summary and pictures where there is a folder."""
        labels = [(CLEAN, "", 0.0), *((trial.name, trial.threat.norm, trial.threat.radius) for trial in self.trials)]
        classes = self.images.classes if is_named(self.images.classes) else ()
        found = Results(warnings=self.notes, classes=classes, told=not process_group().rank)
        for note in self.notes if not process_group().rank else ():
            print(f"WARNING: {note}", flush=True)
        with hold(self.folder):
            if self.folder:
                self.manifest.check(self.folder)  # again, as another evaluation may have ended in the meantime
            outcomes = self.outcomes(allow_weak=allow_weak, warn=print)
            for target, outcome in zip(self.targets, outcomes, strict=True):
                model = target.model
                row = Row(
                    black_boxes.shown_name(model, self.trials), model.seen, model.defended, len(self.images), self.seed
                )
                found += row.count(labels, outcome.verdicts)
                found.warnings += outcome.warnings
                found.predictions[model.title] = outcome.clean.per_class()
                pairs = zip(labels, outcome.movement, strict=True)
                found.movement[model.title] = {results.label_of(*label): moved for label, moved in pairs if moved}
            if self.folder and not process_group().rank:
                results.save(self.folder, found)
                self.manifest.save(self.folder, [_counted(target) for target in self.targets], **self._told(outcomes))
                if pictures:
                    failure_pictures.keep(self, [outcome.verdicts for outcome in outcomes], pictures)
        return found

    def _told(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Return the labels of the images, and the cost of the trials at most."""
        labels = outcomes[0].clean.labels
        gradients, forwards = sum(t.gradients() for t in self.trials), sum(t.forwards() for t in self.trials)
        cost = {"gradients": gradients, "forwards": forwards}  # for an image and model
        return {"labels": " ".join(str(labels[i]) for i in self.images.index.tolist()), "cost": cost}

    def outcomes(self, *, allow_weak: bool, warn: Callable[[str], object]) -> list[Outcome]:
        """Evaluate each model on clean images, and then under each trial; `warn` receives warnings."""
        for device in {device_of(target.model.network) for target in self.targets}:
            if any(str(trial.on(device)) != str(trial) for trial in self.trials):
                report_fallback("The copies that propose compute", "bf16", device)
        images = DigestedImages(self.images)
        # torch's own generators are seeded, so that random models repeat; the caller's state is
        # restored.
        with open_store(self.folder, "records", records.read) as store, full_float32(), torch_seed(self.seed):
            self.known.save(self.folder)
            found: list[Outcome] = []
            for target in self.targets:
                pairs = zip(self.targets, found, strict=False)
                alone = [each.clean for other, each in pairs if other.model.name == target.model.name]
                run = Run(target, store, images, self.seed, self.batch_size)
                found.append(run.outcome(allow_weak, alone[0] if alone and target.model.defended else None, warn))
            for target in self.targets:
                if target.state != state_digest(target.original):
                    raise RuntimeError(
                        f"{target.model.name} changed while it was attacked: its verdicts are not valid."
                    )
        return found


def _counted(target: Target) -> Counted:
    model, trials = target.model, target.trials
    return Counted(
        black_boxes.shown_name(model, trials),
        model.seen,
        model.defended,
        target.key,
        model.defense,
        [(trial.name, trial.threat.norm, trial.threat.radius, str(trial)) for trial in trials],
    )
