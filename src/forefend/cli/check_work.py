"""The gate: is a run's robust accuracy to be trusted?"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.cli.resolve_models import images_for, placed, subjects_of, surrogates_of
from forefend.data import ImageDataset
from forefend.evaluation import records
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking import gate
from forefend.evaluation.gradient_masking.recorded_number import recorded_number
from forefend.evaluation.records import Record
from forefend.evaluation.trial import Suite
from forefend.report.gradient_masking_report import report
from forefend.runtime import files, run_folder
from forefend.runtime.distributed import process_group
from forefend.runtime.threads import choose_threads
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import parse_threat_model


def run(options: Any) -> tuple[str, bool]:
    """Check everything that is defended, or bare classifiers; returns the report, and whether all passed.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    choose_threads()
    run = run_folder.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    models, threat = _asked(options, run)
    folder = _folder(options, run)
    on_record = _on_record(options, run, but=folder)
    numbers = [recorded_number(on_record, model, images, threat) for model in models]
    surrogates = surrogates_of(options)
    placed([model.network for model in models] + list(surrogates.values()), options.device)
    for model in models:  # all are looked at before anything is written
        gate.refuse_unfit(model, images, threat, batch_size=options.batch_size)
    speaks = not process_group().rank
    if speaks and not (folder / "check.json").exists():
        files.write_json(folder / "check.json", {})  # from now on its records are a gate's, even if it is cut short
    found = {}
    for model, number in zip(models, numbers, strict=True):
        if speaks:
            print(f"{model.name}: {len(images)} images, verdicts -> {folder}", flush=True)
        found[model.name] = gate.check(
            model,
            images,
            threat,
            number=number if number.trials or options.records else None,
            surrogates=surrogates,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
            tell=partial(_tell, model, images) if speaks else None,
        )
    passed = all(finding.passed for these in found.values() for finding in these)
    if not speaks:
        return "", passed
    files.write_json(folder / "check.json", {name: [asdict(f) for f in these] for name, these in found.items()})
    return "\n\n".join(report(name, these) for name, these in found.items()), passed


def _tell(model: EvaluatedModel, images: ImageDataset, suite: Suite, batch_size: int) -> None:
    """Say what the work costs, before it starts."""
    print(cost_of([model], images, suite, batch_size).among(process_group().count), flush=True)


def _asked(options: Any, run: run_folder.Run | None) -> tuple[list[EvaluatedModel], ThreatModel]:
    """Whom to check, and in which threat model."""
    models, threat = subjects_of(options, run)
    models = [model for model in models if model.defended] or models
    if not models:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    if not (options.threat or threat):
        raise InputError("The run was trained under no threat model: say which to check with --threat, as Linf:8/255.")
    return models, parse_threat_model(options.threat or threat)


def _folder(options: Any, run: run_folder.Run | None) -> Path:
    """Where verdicts and findings go.

    Raises:
        InputError: an evaluation's records lie there; the check would take them for its own, and never count them.
    """
    usual = (run.folder if run else Path(options.runs)) / "check"
    folder = Path(options.out) if options.out else usual
    holds_records = any(folder.glob("records*.jsonl"))  # asked first: another process may be writing both
    if holds_records and not (folder / "check.json").exists() and folder.resolve() != usual.resolve():
        raise InputError(
            f"{folder} holds an evaluation's records, which would be taken for the check's own: choose an empty or new "
            "folder with --out."
        )
    return folder


def _on_record(options: Any, run: run_folder.Run | None, *, but: Path) -> list[Record]:
    """The records that may hold the number in question: those of the places named, or the run's; no gate's own.

    Raises:
        InputError: records were named, and there are none.
    """
    named = [Path(place) for place in options.records]
    places = named or ([run.folder] if run else [])
    paths = sorted({path.resolve() for place in places for path in place.rglob("records.jsonl")})
    if named and not paths:
        raise InputError(f"{' '.join(options.records)}: no records.jsonl lies there; name the folder of an evaluation.")
    gates = {but.resolve()} | ({(run.folder / "check").resolve()} if run else set())
    gates |= {path.parent for path in paths if (path.parent / "check.json").exists()}
    return [record for path in paths if path.parent not in gates for record in records.read(path)]
