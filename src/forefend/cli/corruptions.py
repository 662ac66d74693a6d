"""`forefend corruptions`: measure a run, or bare classifiers, on corrupted images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forefend.cli.parser import Parser

SEVERITIES = [1, 2, 3, 4, 5]


def main(arguments: list[str]) -> int:
    """Measure, print the tables, save the records and the results."""
    parser = Parser("corruptions", "Measure a run, or bare classifiers, on generated or published corrupted images.")
    parser.add_models()
    parser.add_argument(
        "--from", dest="published", type=str | None, help="folder of CIFAR-10-C, CIFAR-100-C, ImageNet-C"
    )
    parser.add_argument("--corruptions", nargs="+", type=str, default=[], help="such as fog snow (else all available)")
    parser.add_argument("--severities", nargs="+", type=int, default=SEVERITIES, help="from 1 to 5")
    parser.add_evaluation(out="records.jsonl and corruptions.json")
    print(_run(parser.parse_args(arguments)))
    return 0


def _run(options: Any) -> str:
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.corruption_robustness import corruptions
    from forefend.runtime.distributed import process_group
    from forefend.runtime.formatting import counted
    from forefend.runtime.threads import choose_threads

    choose_threads()
    images = resolve_data.evaluation_images(options)
    models, _ = resolve_models.evaluated_models(options, images)
    resolve_models.check_accuracy(models, options)
    resolve_models.move_to_device([model.network for model in models], options.device)
    folder = _folder(options, resolve_models.joined_names(models))
    speaks = not process_group().rank
    if speaks:
        print(f"{counted(len(models), 'model')}, {counted(len(images), 'image')} -> {folder}", flush=True)
    results = corruptions(
        models,
        images,
        corruptions=options.corruptions,
        severities=options.severities,
        published=options.published,
        folder=folder,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    return str(results) if speaks else ""


def _folder(options: Any, names: str) -> Path:
    from forefend.cli.resolve_models import output_folder

    source = [f"from-{Path(options.published).resolve().name}"] if options.published else []
    chosen = "-".join(dict.fromkeys(options.corruptions))[:79]
    severities = sorted(set(options.severities))
    at = [] if severities == SEVERITIES else [f"at-{'-'.join(map(str, severities))}"]
    parts = [*source, names, *filter(None, [chosen]), *at, str(options.images or "all"), f"s{options.seed}"]
    return output_folder(options, "corruptions", *parts)
