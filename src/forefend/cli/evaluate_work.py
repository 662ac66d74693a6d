"""Measure a run, or bare classifiers, under a named suite of attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forefend.checks import InputError, choose
from forefend.cli.resolve_models import images_for, measure_alone, placed, subjects_of, surrogates_of
from forefend.evaluation.evaluate import check, evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.fast_trials import falls_back
from forefend.evaluation.parallel import share
from forefend.evaluation.suites import SUITES
from forefend.evaluation.suites.selection import select_suite
from forefend.evaluation.trial import Suite, Terms
from forefend.models.freezing import device_of
from forefend.report import tables
from forefend.runtime import run_folder
from forefend.runtime.distributed import process_group
from forefend.runtime.launch import joined, ready
from forefend.runtime.threads import choose_threads
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import parse_threat_model


def run(options: Any) -> str:
    """Evaluate, leave records and summary; returns the table.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    choose_threads()
    suite_of = choose(options.suite, SUITES, "suite")
    run = run_folder.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    models, threat = subjects_of(options, run)
    if not options.allow_weak_classifier:
        measure_alone(models, options)
    if not (options.threat or threat):
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    if not models:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    threats = list(dict.fromkeys(parse_threat_model(text) for text in options.threat or [threat]))
    surrogates = surrogates_of(options)
    placed([*(model.network for model in models), *surrogates.values()], options.device)
    suite = select_suite(options, suite_of, Terms(threats, len(images.classes), surrogates))
    folder = Path(options.out) if options.out else _folder(options, run, models, threats, suite)
    check(models, images, suite, folder=folder, seed=options.seed)
    ready()
    with joined(share(options, models, images, suite, folder), options.words):
        cells = evaluate(
            models,
            images,
            suite,
            folder=folder,
            seed=options.seed,
            batch_size=options.batch_size,
            allow_weak=True,  # they were measured above, on more images than may be asked for here
        )
        return tables.text(cells) if not process_group().rank else ""


def _folder(
    options: Any,
    run: run_folder.Run | None,
    models: Sequence[EvaluatedModel],
    threats: Sequence[ThreatModel],
    suite: Suite,
) -> Path:
    """Where an evaluation goes that was given no place: named after all that could make it another one."""
    names = "-".join(dict.fromkeys(model.name.replace(" ", "-").replace("/", "-") for model in models))
    spelled = "-".join(str(threat).replace("/", "_").replace(":", "") for threat in threats)
    parent = (run.folder if run else Path(options.runs)) / "evaluations"
    computed = options.precision
    if any(falls_back(suite, device_of(model.network)) for model in models):
        computed = "fp32"  # bf16 was asked for, if only by the suite
    protocol = [options.suite, *filter(None, [computed]), *(Path(word).stem for word in options.surrogates)]
    parts = [Path(options.data).stem, names[:80], *protocol, spelled, str(options.images or "all"), f"s{options.seed}"]
    return parent / "-".join(parts)
