"""`forefend evaluate`: measure a run, or bare classifiers, under a suite of attacks."""

from __future__ import annotations

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
        type=str,
        default="quick",
        help="quick, standard, cascade, randomized, black-box, curve, or a paper's: rtfe, rtfe-strong-weak, jatp, aaa, "
        "transfer, robustifier",
    )
    parser.add_argument("--surrogates", nargs="+", type=str, default=[], help="classifiers for transfer attacks")
    parser.add_argument(
        "--threat", nargs="+", type=str, help="such as Linf:8/255, several for a curve (else the run's)"
    )
    parser.add_argument(
        "--precision", type=Literal["fp32", "bf16"] | None, help="attack an optimized copy in fp32 or bf16"
    )
    parser.add_argument("--processes", type=int | None, help="number of processes (else by the number of free cores)")
    parser.add_evaluation(out="records.jsonl and summary.json")
    options = parser.parse_args(arguments)
    print(_run(options, ["evaluate", *arguments]))
    return 0


def _run(options: Any, command: list[str]) -> str:
    from forefend.checks import choose
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.evaluate import prepare
    from forefend.evaluation.parallel import processes_for
    from forefend.evaluation.suites import SUITES
    from forefend.evaluation.suites.selection import select_suite
    from forefend.evaluation.trial import Terms
    from forefend.runtime.distributed import process_group
    from forefend.runtime.launch import joined, ready
    from forefend.runtime.threads import choose_threads

    choose_threads()
    suite_of = choose(options.suite, SUITES, "suite")
    images = resolve_data.evaluation_images(options)
    models, trained = resolve_models.evaluated_models(options)
    resolve_models.check_accuracy(models, options)
    threats = resolve_models.given_threats(options.threat, trained)
    surrogates = resolve_models.surrogate_classifiers(options)
    resolve_models.move_to_device([*(model.network for model in models), *surrogates.values()], options.device)
    suite = select_suite(options.suite, suite_of, Terms(threats, len(images.classes), surrogates), options.precision)
    folder = resolve_models.output_folder(options, "evaluations", *_protocol(options, threats, models, suite))
    evaluation = prepare(models, images, suite, folder=folder, seed=options.seed, batch_size=options.batch_size)
    ready()
    with joined(processes_for(evaluation, options.processes), command):
        results = evaluation.run(allow_weak=True)  # checked above, on more images
        return str(results) if not process_group().rank else ""


def _protocol(options: Any, threats: list[ThreatModel], models: Any, suite: Any) -> list[str]:
    """All options that change the results, as parts of a folder's name."""
    from forefend.cli.resolve_models import joined_names
    from forefend.models.freezing import device_of

    falls = any(trial.on(device_of(model.network)) != trial for model in models for trial in suite)
    precision = "fp32" if falls else options.precision  # a suite may choose bf16 itself
    radii = "-".join(str(threat).replace("/", "_").replace(":", "") for threat in threats)
    surrogates = [Path(spec).stem for spec in options.surrogates]
    sample = [str(options.images or "all"), f"s{options.seed}"]
    return [joined_names(models), options.suite, *filter(None, [precision]), *surrogates, radii, *sample]
