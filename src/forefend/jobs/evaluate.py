"""Measure a run, or bare classifiers, under a named suite of attacks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import records, tables
from ..checks import InputError, choose
from ..cost import cost_of
from ..evaluation import Subject, evaluate
from ..processes import processes
from ..suites import SUITES, Terms, swiftly
from ..threads import choose_threads
from ..threat import ThreatModel
from ..wasserstein import parse
from .options import finder_of
from .subjects import images_for, measure_alone, placed, subjects_of


def run(options: Any) -> str:
    """Evaluate, leave records and summary; returns the table.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    choose_threads()
    suite_of = choose(options.suite, SUITES, "suite")
    run = records.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    subjects, threat = subjects_of(options, run)
    if not options.allow_weak_classifier:
        measure_alone(subjects, options)
    if not (options.threat or threat):
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    if not subjects:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    threats = list(dict.fromkeys(parse(text) for text in options.threat or [threat]))
    placed(subjects, options.device)
    folder = Path(options.out) if options.out else _folder(options, run, subjects, threats)
    surrogates = {c.name: c.network for c in map(finder_of(options).look_up, options.surrogates)}
    suite = suite_of(Terms(threats, len(images.classes), surrogates))
    if options.precision:
        suite = swiftly(suite, options.precision)
    if not processes().rank:
        print(f"{len(subjects)} subjects, {len(images)} images -> {folder}", flush=True)
        print(cost_of(subjects, images, suite, batch_size=options.batch_size), flush=True)
    cells = evaluate(
        subjects,
        images,
        suite,
        folder=folder,
        seed=options.seed,
        batch_size=options.batch_size,
        allow_weak=True,  # they were measured above, on more images than may be asked for here
    )
    return tables.text(cells) if not processes().rank else ""


def _folder(options: Any, run: records.Run | None, subjects: Sequence[Subject], threats: Sequence[ThreatModel]) -> Path:
    """Where an evaluation goes that was given no place: named after all that could make it another one."""
    names = "-".join(dict.fromkeys(subject.name.replace(" ", "-").replace("/", "-") for subject in subjects))
    spelled = "-".join(str(threat).replace("/", "_").replace(":", "") for threat in threats)
    parent = (run.folder if run else Path(options.runs)) / "evaluations"
    return (
        parent
        / f"{Path(options.data).stem}-{names[:80]}-{options.suite}-{spelled}-{options.images or 'all'}-s{options.seed}"
    )
