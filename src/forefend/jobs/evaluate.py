"""Measure a run, or bare classifiers, under a named suite of attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import records, suites, tables
from ..checks import InputError, choose
from ..data import Images, sample
from ..defence import Defence, Defended, load
from ..evaluation import Subject, evaluate
from ..named import Named
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
    if not (options.threat or threat):
        raise InputError(
            "The run was trained under no threat model: say which to measure with --threat, as Linf:8/255."
        )
    if not subjects:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    threats = [parse(text) for text in options.threat or [threat]]
    folder = Path(options.out) if options.out else _folder(options, run, threats)
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
        allow_weak=options.allow_weak_classifier,
    )
    return tables.text(cells)


def _images(options: Any, run: records.Run | None) -> Images:
    name = options.data or (run.config["data"] if run else None)
    if name is None:
        raise InputError("No images were named: give --data, or a run, whose test images are then used.")
    options.data = name
    images = images_of(options)("test")
    return images if options.images is None else sample(images, options.images, options.seed)


def _subjects(options: Any, run: records.Run | None) -> tuple[list[Subject], str]:
    """Everything to be judged, and the threat model that the run was trained for."""
    named = [finder_of(options).find(spec) for spec in options.classifiers]
    if run is None:
        if not named:
            raise InputError("Nothing to evaluate: name a run, or a classifier with --classifier architecture:weights.")
        return [Subject(c.name, c.network) for c in named], "Linf:8/255"
    if (run.folder / "classifier.json").exists():
        own = finder_of(options).find(str(run.folder))
        return [Subject(c.name, c.network) for c in [own, *named]], run.config["settings"].get("threat", "Linf:8/255")
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
    return finder_of(options, guide["mean"], guide["std"]).find(guide["spec"])


def _distinct(named: Sequence[Named]) -> list[Named]:
    """One of each: a classifier named twice is judged once."""
    return list({c.config()["fingerprint"]: c for c in named}.values())


def _pair(defence: Defence, named: Named) -> list[Subject]:
    """A classifier alone and behind the defence."""
    seen = defence.has_seen(named.network)
    return [
        Subject(named.name, named.network, seen=seen),
        Subject(named.name, Defended(defence, named.network), defended=True, seen=seen),
    ]


def _folder(options: Any, run: records.Run | None, threats: Sequence[ThreatModel]) -> Path:
    spelled = "-".join(str(threat).replace("/", "_").replace(":", "") for threat in threats)
    parent = run.folder / "evaluations" if run else Path(options.runs)
    return parent / f"{options.suite}-{spelled}-{options.images or 'all'}-s{options.seed}"
