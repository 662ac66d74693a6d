"""`forefend evaluate`: measure a run, or bare classifiers, under a suite of attacks."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forefend.cli.parser import Parser

if TYPE_CHECKING:
    from forefend.threat_models.base import ThreatModel


def main(arguments: list[str]) -> int:
    """Evaluate, print the table, save the records and the summary."""
    parser = Parser("evaluate", "Measure a run, or bare classifiers, under a suite of attacks.")
    parser.add_models()
    parser.add_argument(
        "--suite",
        type=str | None,
        help="quick, fast, standard, randomized, black-box, curve, or a paper's: rtfe, rtfe-strong-weak, jatp, aaa, "
        "transfer, robustifier (else quick, and black-box for a black box)",
    )
    parser.add_argument("--surrogates", nargs="+", type=str, default=[], help="classifiers for transfer attacks")
    parser.add_argument(
        "--threat", nargs="+", type=str, help="such as Linf:8/255, several for a curve (else the run's)"
    )
    parser.add_argument(
        "--precision", type=Literal["fp32", "bf16"] | None, help="attack an optimized copy in fp32 or bf16"
    )
    parser.add_argument("--steps", type=int | None, help="gradient steps of the suite curve, PGD (else 20)")
    parser.add_argument("--step-size", type=str | None, help="its step, such as 2/255 (else 2.5 radii / steps)")
    parser.add_argument("--restarts", type=int | None, help="its random starts of each image (else 2)")
    parser.add_table()
    parser.add_argument("--pictures", type=int, default=0, help="failures whose images are kept, for the evidence page")
    parser.add_argument("--processes", type=int | None, help="number of processes (else by the number of free cores)")
    parser.add_evaluation(out="records.jsonl and summary.json")
    options = parser.parse_args(arguments)
    print(_run(options, ["evaluate", *arguments]))
    return 0


def _run(options: Any, command: list[str]) -> str:
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation import black_boxes
    from forefend.evaluation.evaluate import prepare
    from forefend.evaluation.given_images import images_for
    from forefend.evaluation.parallel import processes_for
    from forefend.evaluation.result_store import hold
    from forefend.evaluation.suites import SUITES, curve, suite_named
    from forefend.evaluation.suites.selection import select_suite
    from forefend.evaluation.trial import Terms
    from forefend.report import tables
    from forefend.runtime.distributed import process_group
    from forefend.runtime.launch import end_with_first, joined, ready
    from forefend.runtime.threads import choose_threads

    end_with_first()
    choose_threads()
    pgd = pgd_options(options)
    suite_named(options.suite or "quick")
    images = resolve_data.evaluation_images(options)
    models, trained = resolve_models.evaluated_models(options, images)
    images = images_for(models, images)
    options.suite = options.suite or black_boxes.default_suite(models)
    suite_of = (lambda terms: curve(terms.threats, **pgd)) if pgd else SUITES[options.suite]
    threats = resolve_models.given_threats(options.threat, trained)
    terms = Terms(threats, len(images.classes), scores=black_boxes.gives_scores(models))
    if black_boxes.any_of(models):  # before a surrogate is loaded, or anything asked
        black_boxes.check_knowledge(models, suite_of(terms))
    resolve_models.check_accuracy(models, options)
    surrogates = resolve_models.surrogate_classifiers(options)
    resolve_models.move_to_device([*(model.network for model in models), *surrogates.values()], options.device)
    suite = select_suite(options.suite, suite_of, replace(terms, surrogates=surrogates), options.precision)
    folder = resolve_models.output_folder(options, "evaluations", *_protocol(options, threats, models, suite))
    evaluation = prepare(models, images, suite, folder=folder, seed=options.seed, batch_size=options.batch_size)
    ready()
    with hold(folder), ExitStack() as processes:  # the folder before its cost is measured
        count = processes_for(evaluation, options.processes)
        if count > 1:
            evaluation.known.save(folder)  # for the other processes
        processes.enter_context(joined(count, command))
        results = evaluation.run(allow_weak=True, pictures=options.pictures)  # checked above, on more images
        if process_group().rank:
            return ""
        shown = tables.cumulative(results) if options.cumulative else results
        return shown.to_text(tables.chosen_layout(options))


def pgd_options(options: Any) -> dict[str, Any]:
    """The options of PGD that were given, as arguments of the suite curve.

    Raises:
        InputError: another suite, or a number out of range.
    """
    from forefend.checks import InputError, check_numbers

    given = {"steps": options.steps, "restarts": options.restarts, "step_size": options.step_size}
    given = {name: value for name, value in given.items() if value is not None}
    if given and options.suite != "curve":
        names = " and ".join(given)
        raise InputError(
            f"The suite {options.suite or 'quick'} has its own {names}: choose the suite curve, or leave it out."
        )
    if "step_size" in given:
        try:
            given["step_size"] = float(Fraction(options.step_size))
        except (ValueError, ZeroDivisionError):
            raise InputError(f"--step-size is {options.step_size!r}, expected a number such as 2/255.") from None
    check_numbers(given)
    return given


def _protocol(options: Any, threats: list[ThreatModel], models: Any, suite: Any) -> list[str]:
    """All options that change the results, as parts of a folder's name."""
    from forefend.cli.resolve_models import joined_names
    from forefend.models.freezing import device_of
    from forefend.threat_models.parsing import as_file_name

    falls = any(trial.on(device_of(model.network)) != trial for model in models for trial in suite)
    precision = "fp32" if falls else options.precision  # a suite may choose bf16 itself
    radii = "-".join(map(as_file_name, threats))
    surrogates = [Path(spec).stem for spec in options.surrogates]
    sample = [str(options.images or "all"), f"s{options.seed}"]
    pgd = [f"{name.replace('_', '-')}{value:.4g}" for name, value in pgd_options(options).items()]
    return [joined_names(models), options.suite, *pgd, *filter(None, [precision]), *surrogates, radii, *sample]
