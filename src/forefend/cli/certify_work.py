"""Prove an l2 radius for each image: of a run's defended classifiers and of bare ones, smoothed with Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.cli.resolve_models import images_for, measure_alone, placed, subjects_of
from forefend.evaluation.certification.certificate import SmoothingConfig
from forefend.evaluation.certification.randomized_smoothing import certify
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.report import certification_table
from forefend.runtime import run_folder
from forefend.runtime.threads import choose_threads

RADII = (0.0, 0.25, 0.5)  # where the papers' tables begin


def run(options: Any) -> str:
    """Certify, leave certificates; returns the table.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    choose_threads()
    smoothing = SmoothingConfig(options.sigma, options.samples, options.first, options.alpha, options.seed)
    counted = _radii(options.radii, smoothing)
    run = run_folder.Run(Path(options.run)) if options.run else None
    images = images_for(options, run)
    models, _ = subjects_of(options, run)
    if not models:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    if not options.allow_weak_classifier:
        measure_alone(models, options)
    placed([model.network for model in models], options.device)
    folder = Path(options.out) if options.out else _folder(options, run, models)
    copies = smoothing.first + smoothing.samples
    print(f"{len(models)} subjects, {len(images)} images, {copies} noisy copies an image -> {folder}", flush=True)
    rows = {
        name: certify(model.network, images, smoothing, folder=folder, name=name, batch_size=options.batch_size)
        for name, model in ((_title(model), model) for model in models)
    }
    return certification_table.text(rows, counted, smoothing)


def _radii(given: Sequence[float] | None, smoothing: SmoothingConfig) -> list[float]:
    """The radii to count at: those given, each once, or the usual ones as far as the samples reach.

    Raises:
        InputError: one that was given is out of reach.
    """
    if given is None:
        return [radius for radius in RADII if radius < smoothing.largest_radius]
    for radius in given:
        smoothing.check_radius(radius)
    return list(dict.fromkeys(given))


def _title(model: EvaluatedModel) -> str:
    return f"{model.name} defended" if model.defended else model.name


def _folder(options: Any, run: run_folder.Run | None, models: Sequence[EvaluatedModel]) -> Path:
    """Where certificates go that were given no place; they tell themselves apart, so that a folder may hold many."""
    names = "-".join(dict.fromkeys(model.name.replace(" ", "-").replace("/", "-") for model in models))
    parent = (run.folder if run else Path(options.runs)) / "certificates"
    return parent / f"{Path(options.data).stem}-{names[:80]}-sigma{options.sigma:g}-s{options.seed}"
