"""Measure a run, or bare classifiers, under a named suite of attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import records, suites, tables
from ..checks import InputError, choose
from ..data import Images, sample
from ..defence import Defence, Defended, load
from ..evaluation import Subject, evaluate
from ..named import Named, measure
from ..suites import Suite
from ..threat import ThreatModel, parse
from .options import finder_of, images_of

SUITES: dict[str, Callable[[Sequence[ThreatModel]], Suite]] = {
    "curve": suites.curve,
    "quick": lambda threats: [trial for threat in threats for trial in suites.quick(threat)],
    "rtfe": suites.rtfe,
}


def run(options: Any) -> str:
    """Evaluate, leave records and summary; returns the table.

    Raises:
        InputError: options that do not fit together, or subjects or images that cannot be used.
    """
    suite_of = choose(options.suite, SUITES, "suite")
    run = records.Run(Path(options.run)) if options.run else None
    images = _images(options, run)
    subjects, threat = _subjects(options, run)
    if not options.allow_weak_classifier:
        _measure_alone(subjects, options)
    if not (options.threat or threat):
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    if not subjects:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    threats = list(dict.fromkeys(parse(text) for text in options.threat or [threat]))
    folder = Path(options.out) if options.out else _folder(options, run, subjects, threats)
    suite = suite_of(threats)
    cost = sum(trial.gradients() for trial in suite)
    print(f"{len(subjects)} subjects, {len(images)} images, at most {cost} gradients an image -> {folder}", flush=True)
    cells = evaluate(
        subjects,
        images,
        suite,
        folder=folder,
        seed=options.seed,
        batch_size=options.batch_size,
        allow_weak=True,  # they were measured above, on more images than may be asked for here
    )
    return tables.text(cells)


def _measure_alone(subjects: Sequence[Subject], options: Any) -> None:
    """Refuse an undefended classifier that is near chance on 500 test images, before anything is written."""
    images = sample(images_of(options)("test"), 500, seed=0)
    for subject in subjects:
        if not subject.defended:
            measure(subject.name, subject.network, images)


def _images(options: Any, run: records.Run | None) -> Images:
    config = run.config if run else {}
    options.data = options.data or config.get("data")
    options.size = options.size or config.get("size")
    if options.data is None:
        raise InputError("No images were named: give --data, or a run, whose test images are then used.")
    images = images_of(options)("test")
    return images if options.images is None else sample(images, options.images, options.seed)


def _subjects(options: Any, run: records.Run | None) -> tuple[list[Subject], str]:
    """Everything to be judged, and the threat model that the run was trained for."""
    named = [finder_of(options).look_up(spec) for spec in options.classifiers]
    if run is None:
        if not named:
            raise InputError("Nothing to evaluate: name a run, or a classifier with --classifier architecture:weights.")
        return [Subject(c.name, c.network) for c in _distinct(named)], "Linf:8/255"
    if (run.folder / "classifier.json").exists():
        own = finder_of(options).look_up(str(run.folder))
        return [Subject(c.name, c.network) for c in _distinct([own, *named])], run.config["settings"].get(
            "threat", "Linf:8/255"
        )
    defence = load(run.folder)
    guides = [_guide(options, guide) for guide in run.config.get("guides", [])]
    pairs = [s for c in _distinct([*guides, *named]) for s in _pair(defence, c)]
    return _trained_along(options, run, defence) + pairs, defence.card.threat


def _trained_along(options: Any, run: records.Run, defence: Defence) -> list[Subject]:
    """The classifier that was trained with the preprocessor, if any, behind it: alone it was never meant to stand."""
    folder = run.folder / "classifier"
    if not (folder / "classifier.json").exists():
        return []
    named = finder_of(options).look_up(str(folder))
    return [Subject(f"{run.folder.name}'s own", Defended(defence, named.network), defended=True, seen=True)]


def _guide(options: Any, guide: dict[str, Any]) -> Named:
    """A run's guide, found again by the word that it was named with."""
    found = finder_of(options, guide["mean"], guide["std"]).look_up(guide["spec"])
    wanted = guide.get("fingerprint")
    if wanted not in (None, found.config()["fingerprint"]):
        raise InputError(
            f"The guide {guide['spec']} is no longer the classifier that this run learned from (its fingerprint was "
            f"{wanted}): restore it, or evaluate with --classifiers on a defence copied away from its run."
        )
    return found


def _distinct(named: Sequence[Named]) -> list[Named]:
    """One of each: a classifier named twice is judged once, and two of one name are told apart by fingerprint."""
    different = {c.config()["fingerprint"]: c for c in named}
    names = [c.name for c in different.values()]
    return [
        replace(c, name=f"{c.name} {print_[:4]}") if names.count(c.name) > 1 else c for print_, c in different.items()
    ]


def _pair(defence: Defence, named: Named) -> list[Subject]:
    """A classifier alone and behind the defence."""
    seen = defence.has_seen(named.network)
    return [
        Subject(named.name, named.network, seen=seen),
        Subject(named.name, Defended(defence, named.network), defended=True, seen=seen),
    ]


def _folder(options: Any, run: records.Run | None, subjects: Sequence[Subject], threats: Sequence[ThreatModel]) -> Path:
    """Where an evaluation goes that was given no place: named after all that could make it another one."""
    names = "-".join(dict.fromkeys(subject.name.replace(" ", "-").replace("/", "-") for subject in subjects))
    spelled = "-".join(str(threat).replace("/", "_").replace(":", "") for threat in threats)
    parent = (run.folder if run else Path(options.runs)) / "evaluations"
    return (
        parent
        / f"{Path(options.data).stem}-{names[:80]}-{options.suite}-{spelled}-{options.images or 'all'}-s{options.seed}"
    )
