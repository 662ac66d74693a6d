"""`forefend check`: look for signs of gradient masking."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forefend.cli.parser import Parser
from forefend.runtime.run_folder import Run

if TYPE_CHECKING:
    from forefend.data import ImageDataset
    from forefend.evaluation.evaluated_model import EvaluatedModel
    from forefend.evaluation.gradient_masking.check_report import CheckReport
    from forefend.evaluation.gradient_masking.evidence import RecordedAccuracy
    from forefend.threat_models.base import ThreatModel


def main(arguments: list[str]) -> int:
    """Check every model and print the reports; return 1 if a check failed."""
    parser = Parser("check", "Look for signs of gradient masking; the exit code is 1 if a check failed.")
    parser.add_models()
    parser.add_argument("--threat", type=str | None, help="such as Linf:8/255 (else the run's)")
    parser.add_argument("--records", nargs="+", type=str, default=[], help="folders of evaluations (else the run's)")
    parser.add_argument("--surrogates", nargs="+", type=str, default=[], help="classifiers for transfer attacks")
    parser.add_evaluation(images=200, out="check.json and records.jsonl")
    options = parser.parse_args(arguments)
    from forefend.runtime.distributed import process_group

    reports = _reports(options)
    if not process_group().rank:
        print("\n\n".join(map(str, reports)))
    return 0 if all(report.passed for report in reports) else 1


def _reports(options: Any) -> list[CheckReport]:
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.given_images import images_for
    from forefend.evaluation.gradient_masking import check as library
    from forefend.runtime.distributed import process_group
    from forefend.runtime.threads import choose_threads

    choose_threads()
    run = Run(Path(options.run)) if options.run else None
    images = resolve_data.evaluation_images(options)
    models, trained = resolve_models.evaluated_models(options, images)
    models = [model for model in models if model.defended] or models
    images = images_for(models, images)
    threat = resolve_models.given_threats(options.threat and [options.threat], trained)[0]
    folder = Path(options.out) if options.out else (run.folder if run else Path(options.runs)) / "check"
    recorded = [_recorded(options, run, model, images, threat, folder) for model in models]
    surrogates = resolve_models.surrogate_classifiers(options)
    resolve_models.move_to_device([model.network for model in models] + list(surrogates.values()), options.device)
    for model in models:  # all models, before anything is written
        library.validate(model, images, threat, batch_size=options.batch_size)
    return [
        library.check(
            model,
            images,
            threat,
            records=found or (),
            surrogates=surrogates,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
            log=None if process_group().rank else partial(print, flush=True),
        )
        for model, found in zip(models, recorded, strict=True)
    ]


def _recorded(
    options: Any, run: Run | None, model: EvaluatedModel, images: ImageDataset, threat: ThreatModel, folder: Path
) -> RecordedAccuracy | None:
    """Read the folders of --records, or the run's folder, which may hold no records of the model."""
    from forefend.evaluation.gradient_masking.recorded_accuracy import read_records, recorded_accuracy

    folders = options.records or ([run.folder] if run and any(run.folder.rglob("records.jsonl")) else [])
    found = recorded_accuracy(read_records(folders, exclude=folder), model, images, threat)
    return found if found.trials or found.unidentified or options.records else None
