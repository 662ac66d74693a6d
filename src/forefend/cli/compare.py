"""`forefend compare`: compare the defense of a run with baselines at equal training compute."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forefend.cli.parser import Parser
from forefend.runtime.run_folder import Run

if TYPE_CHECKING:
    from forefend.models.classifiers.model_card import NamedClassifier


def main(arguments: list[str]) -> int:
    """Train the baselines, attack all models, print the table and write the records."""
    parser = Parser(
        "compare",
        "Compare a run's defense with the classifier alone, JPEG, fewer bits, total variation, denoised smoothing and "
        "adversarial fine-tuning of the classifier itself, the trained ones at this run's training compute.",
    )
    parser.add_argument("run", type=str, help="folder of the run")
    parser.add_argument("--classifier", type=str | None, help="name of the guide (default: the run's first)")
    parser.add_argument("--suite", type=str, default="quick", help="as for evaluate: quick, standard, curve, …")
    parser.add_argument("--threat", type=str | None, help="such as Linf:8/255 (default: the run's)")
    parser.add_argument("--denoiser", type=str, default="dncnn", help="architecture for denoised smoothing")
    parser.add_argument("--sigma", type=float, default=0.25, help="standard deviation of its noise")
    parser.add_argument("--copies", type=int, default=8, help="noisy copies that it averages")
    parser.add_argument("--lr", type=float, default=0.01, help="learning rate of adversarial fine-tuning")
    parser.add_argument("--images", type=int | None, help="stratified, seeded sample of the whole test set")
    parser.add_argument("--batch-size", type=int, default=250, help="images attacked at once")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample and the attacks")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (default: the best available)")
    parser.add_argument("--out", type=str | None, help="folder for records, compare.json and compare.md")
    parser.add_data(default=None)
    parser.add_classifiers()
    options = parser.parse_args(arguments)
    from forefend.cli.resolve_data import images_of
    from forefend.cli.resolve_models import images_for
    from forefend.evaluation.comparison.compare import compare
    from forefend.runtime.threads import choose_threads

    choose_threads()
    run = Run(Path(options.run))
    images = images_for(options, run)
    comparison = compare(
        options.run,
        images,
        suite=options.suite,
        threat=options.threat,
        classifier=options.classifier,
        denoiser=options.denoiser,
        sigma=options.sigma,
        copies=options.copies,
        lr=options.lr,
        train_data=images_of(options)("train"),
        guides=_guides(options, run),
        folder=options.out,
        seed=options.seed,
        batch_size=options.batch_size,
        device=options.device,
        allow_weak=options.allow_weak_classifier,
        log=partial(print, flush=True),
    )
    print(comparison)
    return 0


def _guides(options: Any, run: Run) -> list[NamedClassifier] | None:
    """Return the guides of the run, found by the names it was trained with."""
    from forefend.cli.resolve_data import finder_of

    if not (run.folder / "config.json").exists():
        return None
    guides = run.config.get("guides", [])
    return [replace(finder_of(options, g["mean"], g["std"]).look_up(g["spec"]), name=g["name"]) for g in guides]
