"""Check whether a measured robustness may be an artifact of masked gradients.

After Carlini et al., On evaluating adversarial robustness (1902.06705), Athalye et al. (1802.00420)
and appendix A of RTFE (2209.06931). The checks do not prove robustness. A failed check shows that an
accuracy is not to be trusted; passed checks only show that no sign of gradient masking was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from forefend.attacks.autoattack import flags
from forefend.checks import InputError, check_images, check_labels
from forefend.data import ImageDataset
from forefend.evaluation.clean_accuracy import classifier_alone, clean_predictions
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel, as_models
from forefend.evaluation.given_images import images_for
from forefend.evaluation.gradient_masking.attack_suite import AttackSuite, CheckBudget
from forefend.evaluation.gradient_masking.check_report import CheckReport
from forefend.evaluation.gradient_masking.checks import GENERAL, WITH_ATTACKS, WITH_GRADIENTS, Check, results_of
from forefend.evaluation.gradient_masking.diagnostics import diagnose
from forefend.evaluation.gradient_masking.evidence import Evidence, RecordedAccuracy
from forefend.evaluation.gradient_masking.recorded_accuracy import read_records, recorded_accuracy
from forefend.evaluation.identification import network_digest
from forefend.evaluation.result_store import hold
from forefend.evaluation.results import CLEAN
from forefend.evaluation.trial import Suite, Trial
from forefend.models.defended import Defended
from forefend.models.freezing import device_of, frozen, gradients_enabled
from forefend.models.given_images import kept_state
from forefend.models.output_checks import check_classifier
from forefend.runtime.distributed import process_group
from forefend.runtime.files import write_versioned
from forefend.runtime.formatting import counted
from forefend.runtime.rng import torch_seed
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.parsing import as_threat_model

Evaluate = Callable[..., list[dict[int, bool]]]  # of images and suite

FULL: Final = CheckBudget()


@gradients_enabled()
def check(
    model: nn.Module | EvaluatedModel,
    data: Any,
    threat: ThreatModel | str = "Linf:8/255",
    *,
    records: Sequence[str | Path] | RecordedAccuracy = (),
    surrogates: Mapping[str, nn.Module] | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 250,
    budget: CheckBudget = FULL,
    log: Callable[[str], None] | None = None,
) -> CheckReport:
    """Attack a model in many ways and check the outcomes for signs of gradient masking.

    Args:
        model: images in [0, 1] to logits; a `Defended` model is also attacked around its defense.
        data: test images, in any form that `as_image_dataset` accepts; one or two hundred are enough.
        threat: the threat model, or its name: Linf or L2 with one radius.
        records: folders of evaluations of this model, or what `recorded_accuracy` read from them. The checks then
            require a suitable recorded attack, and an accuracy that agrees with their own attacks.
        surrogates: other classifiers by name, for transfer attacks.
        folder: where records and `check.json` are written; an interrupted check resumes from there.
        seed: seed of the attacks.
        batch_size: images attacked at once.
        budget: computation of the attacks for each image.
        log: receives a line before the work starts, and the estimated cost.

    Returns:
        The result of each check.

    Raises:
        InputError: the threat model, the images, the model or the folder cannot be used.
    """
    (model,) = as_models(model)
    images, threat = images_for([model], data), as_threat_model(threat)
    validate(model, images, threat, batch_size=batch_size, budget=budget)
    folder = Path(folder) if folder else None
    recorded = records if isinstance(records, RecordedAccuracy) else None
    if not isinstance(records, RecordedAccuracy) and records:
        recorded = recorded_accuracy(read_records(records, exclude=folder), model, images, threat)
    log = log or (lambda line: None)
    with hold(folder):
        if folder:
            _start_folder(folder)
        log(f"{model.name}: {counted(len(images), 'image')}{f', records -> {folder}' if folder else ''}")
        evaluate = partial(verdicts, model, folder=folder, seed=seed)
        checks, evidence = _measured(
            model, images, threat, recorded, surrogates or {}, evaluate, batch_size, budget, log
        )
        results, network = results_of(checks, evidence), network_digest(frozen(model.network))
        report = CheckReport(results, model.name, str(threat), len(images), defense=model.defense, network=network)
        if folder and not process_group().rank:
            report.save(folder / "check.json")
    return report


def _measured(
    model: EvaluatedModel,
    images: ImageDataset,
    threat: ThreatModel,
    recorded: RecordedAccuracy | None,
    surrogates: Mapping[str, nn.Module],
    evaluate: Evaluate,
    batch_size: int,
    budget: CheckBudget,
    log: Callable[[str], None],
) -> tuple[Sequence[Check], Evidence]:
    """Return which checks apply, and all that they are about."""
    evidence = _without_attacks(model, images, threat, recorded, budget.samples, batch_size)
    facts = evidence.facts
    checks = list(GENERAL)
    if not facts["logits"] or facts["mixes"]:  # evaluation refuses such models
        return checks, evidence
    # A model may draw once a batch: small batches keep one draw from deciding the result.
    size = min(batch_size, 8) if facts["random"] else batch_size
    evaluate = partial(evaluate, batch_size=size)
    attacks = AttackSuite(threat, budget, bool(facts["random"]))
    suite = attacks.black_box_trials(surrogates)
    if isinstance(model.network, Defended) and not facts["black_box"]:  # they follow the classifier's gradient
        suite += attacks.bypass_trials()
    last: list[Trial] = []
    if facts["has_gradient"]:
        classes = evidence.classes
        suite = [*attacks.white_box_trials(classes), *suite, *attacks.curve_trials(images.shape)]
        last = [attacks.reference_trial(classes)]
    with torch_seed(0):
        log(str(cost_of([model], images, [*suite, *last], size).among(process_group().count)))
    evidence = _with_outcomes(evidence, suite, evaluate(images, suite), threat)
    checks += WITH_ATTACKS
    if facts["black_box"]:
        evidence = replace(evidence, curve={threat.radius: frozenset()})  # for the names of the skipped checks
        checks += WITH_GRADIENTS
    for trial in last:
        evidence = _with_reference(evidence, trial, images, evaluate)
        checks += WITH_GRADIENTS
    return checks, evidence


def _without_attacks(
    model: EvaluatedModel,
    images: ImageDataset,
    threat: ThreatModel,
    recorded: RecordedAccuracy | None,
    samples: int,
    batch_size: int,
) -> Evidence:
    """Return what the model shows before any attack: its properties, and whether it works on clean images."""
    with torch_seed(0):
        batch = images.batch(torch.arange(min(len(images), batch_size)))
        facts, landscape = diagnose(model.network, batch, threat, samples)
        network = frozen(model.network)
        clean = clean_predictions(network, images, batch_size)
        faults = clean.faults(model.name, classifier_alone(network, images))
    everything, classes = frozenset(images.index.tolist()), len(images.classes)
    accuracy = 1 - sum(clean.misclassified().values()) / len(images)
    return Evidence(everything, classes, threat.norm, {}, {}, recorded, facts, landscape, clean=accuracy, faults=faults)


def validate(
    model: EvaluatedModel, images: ImageDataset, threat: ThreatModel, *, batch_size: int, budget: CheckBudget = FULL
) -> None:
    """Refuse arguments that `check` cannot use; probabilities are a result, not an error.

    Raises:
        InputError: the threat model, the images or the model cannot be used.
    """
    if not (isinstance(threat, Linf | L2) and isinstance(threat.radius, float) and threat.radius > 0):
        raise InputError(f"The checks cannot attack in {threat}: give Linf or L2 with one radius above 0.")
    classes = len(images.classes)
    # Raises what it cannot use before the other attacks have run.
    AttackSuite(threat, budget, random=False).reference_trial(classes)
    network = frozen(model.network)
    x, y, _ = images.batch(torch.arange(min(len(images), batch_size)))

    def shifted(x: Tensor) -> Any:
        """Return outputs that cannot be taken for probabilities."""
        logits = network(x)
        return logits - 1 if isinstance(logits, Tensor) else logits

    check_images(x)
    check_labels(y, classes)
    with kept_state(network, model.name), torch.no_grad(), torch_seed(0):
        check_classifier(shifted, x[:2].to(device_of(network)), classes, model.name)


def _start_folder(folder: Path) -> None:
    """Mark the folder, so that its records never count as those of an evaluation."""
    holds_records = any(folder.glob("records*.jsonl"))  # first, as another process may be writing both files
    if (folder / "check.json").exists():
        return
    if holds_records:
        raise InputError(
            f"{folder} holds an evaluation's records, which must not mix with the check's: choose an empty or new "
            "folder."
        )
    if not process_group().rank:
        write_versioned(folder / "check.json", {"reports": {}})


def _with_outcomes(evidence: Evidence, suite: Suite, found: Sequence[dict[int, bool]], threat: ThreatModel) -> Evidence:
    clean, *broken = map(_misclassified, found)
    pairs = list(zip(suite, broken, strict=True))
    at_radius = {trial.name: images for trial, images in pairs if trial.threat.radius == threat.radius}
    curve = {trial.threat.radius: images for trial, images in pairs if trial.name == "PGD-20"}
    return replace(evidence, misclassified={CLEAN: clean, **at_radius}, curve=curve)


def _misclassified(verdicts: dict[int, bool]) -> frozenset[int]:
    return frozenset(index for index, is_adv in verdicts.items() if is_adv)


def _with_reference(evidence: Evidence, trial: Trial, images: ImageDataset, evaluate: Evaluate) -> Evidence:
    """Run the reference attack on the images that no white-box trial broke."""
    broken = evidence.broken_by_white_box()
    rows = torch.tensor([row for row, i in enumerate(images.index.tolist()) if i not in broken], dtype=torch.int64)
    warnings: tuple[str, ...] = ()
    if len(rows):
        with flags() as raised:
            broken |= _misclassified(evaluate(images.subset(rows), [trial])[-1])
        own: Any = dict.fromkeys(raised)  # each process sees the warnings of its own images only
        warnings = tuple(map(str, process_group().all_of(own)))
    return replace(evidence, misclassified={**evidence.misclassified, trial.name: broken}, warnings=warnings)
