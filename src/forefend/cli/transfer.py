"""`forefend transfer`: measure how adversarial images crafted on other models mislead defended classifiers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from forefend.cli.parser import Parser


def main(arguments: list[str]) -> int:
    """Measure, print the table, save it with a heat map."""
    parser = Parser(
        "transfer",
        "Measure a run's classifiers behind its defense on adversarial images that are crafted on each classifier, "
        "alone, behind the defense (white box for the classifier itself), and behind a public surrogate defense.",
    )
    parser.add_argument("run", type=str, help="folder of a run that trained a preprocessor")
    parser.add_argument("--classifiers", "--classifier", nargs="+", type=str, default=[], help="more classifiers")
    parser.add_argument("--surrogates", nargs="+", type=str, default=[], help="more classifiers to craft images on")
    parser.add_argument("--surrogate-defense", nargs="+", type=str, default=[], help="run of a public defense")
    parser.add_argument("--threat", type=str | None, help="such as Linf:8/255 (else the run's)")
    parser.add_argument(
        "--attacks", nargs="+", type=str, default=["pgd", "mi-fgsm"], help="fgsm, pgd, mi-fgsm, di-fgsm or ti-bim"
    )
    parser.add_evaluation(out="records.jsonl, transfer.json, transfer.md and the heat map")
    options = parser.parse_args(arguments)
    print(_run(options))
    return 0


def _run(options: Any) -> str:
    from forefend.checks import InputError
    from forefend.cli import resolve_data, resolve_models
    from forefend.evaluation.transferability.transfer import transfer
    from forefend.models.defense import load
    from forefend.report.heat_map import heat_map
    from forefend.runtime.distributed import process_group
    from forefend.runtime.threads import choose_threads

    choose_threads()
    defense = load(options.run)
    public = {name: load(folder) for name, folder in _names(options.surrogate_defense).items()}
    images = resolve_data.evaluation_images(options)
    models, trained = resolve_models.evaluated_models(options, images)
    (threat,) = resolve_models.given_threats(options.threat and [options.threat], trained)
    classifiers = resolve_models.bare_classifiers(models)
    surrogates = resolve_models.surrogate_classifiers(options)
    networks = [*classifiers.values(), *surrogates.values(), defense, *public.values()]
    resolve_models.move_to_device(networks, options.device)
    folder = _folder(options, str(threat), resolve_models.joined_names(models))
    first = not process_group().rank
    matrix = transfer(
        defense,
        classifiers,
        images,
        threat=threat,
        attacks=options.attacks,
        surrogates=surrogates,
        surrogate_defenses=public,
        folder=folder,
        seed=options.seed,
        batch_size=options.batch_size,
        allow_weak=options.allow_weak_classifier,
        log=partial(print, flush=True) if first else None,
    )
    if not first:
        return ""
    try:
        heat_map(matrix, folder)
    except InputError as missing:
        return f"{matrix}\n{missing}"
    return f"{matrix}\nheat map: {folder}/transfer.png"


def _names(folders: list[str]) -> dict[str, str]:
    """The folders of runs by name, or by path where two have one name."""
    names = [Path(folder).resolve().name for folder in folders]
    return {folder if names.count(name) > 1 else name: folder for folder, name in zip(folders, names, strict=True)}


def _folder(options: Any, threat: str, names: str) -> Path:
    from forefend.cli.resolve_models import output_folder
    from forefend.threat_models.parsing import as_file_name

    others = [Path(spec).stem for spec in [*options.surrogates, *options.surrogate_defense]]
    parts = [names, *options.attacks, *others, as_file_name(threat), str(options.images or "all"), f"s{options.seed}"]
    return output_folder(options, "transfer", *parts)
