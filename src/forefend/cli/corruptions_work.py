"""Measure a run, or bare classifiers, on corrupted images, made here or published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forefend.checks import InputError, unknown_name
from forefend.cli.resolve_models import images_for, measure_alone, placed, subjects_of
from forefend.data import ImageDataset, corruption_sets, corruptions
from forefend.evaluation.corruption_robustness import ALL, CLEAN, Condition, measure
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.report import corruption_table
from forefend.runtime import run_folder
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.threads import choose_threads


def run(options: Any) -> str:
    """Measure, leave records and cells; returns the tables.

    Raises:
        InputError: options that do not fit together, or subjects, images or corruptions that cannot be used.
    """
    choose_threads()
    for severity in options.severities:
        corruptions.check_severity(severity)
    held = run_folder.Run(Path(options.run)) if options.run else None
    images = images_for(options, held)
    if options.published:
        images = _common(options, images)
        wanted = _published(options, images)
    else:
        wanted = _made(options, images)
    models, _ = subjects_of(options, held)
    if not models:
        raise InputError(f"{options.run} knows no classifier to stand behind it: name one with --classifiers.")
    if not options.allow_weak_classifier:
        measure_alone(models, options)
    placed([model.network for model in models], options.device)
    folder = Path(options.out) if options.out else _folder(options, held, models)
    print(
        f"{len(models)} subjects, {len(images)} images, {len(wanted)} corruptions × severities -> {folder}",
        flush=True,
    )
    conditions = [Condition(CLEAN, ALL, lambda: images), *wanted]
    cells = measure(models, conditions, folder=folder, seed=options.seed, batch_size=options.batch_size)
    return corruption_table.text(cells)


def _made(options: Any, images: ImageDataset) -> list[Condition]:
    """The corruptions of our own shelf, those of color only where there is any."""
    fitting = [name for name in corruptions.CORRUPTIONS if images.shape[0] == 3 or name not in corruptions.COLOR_ONLY]
    names = list(dict.fromkeys(options.corruptions or fitting))
    for name in names:
        corruptions.find_corruption(name)
        if name not in fitting:
            raise InputError(f"The images of {images.name} are gray, and {name} changes colors: leave it out.")
    return [Condition(name, level, lambda: images, _corrupter(name, level)) for name, level in _grid(names, options)]


def _corrupter(name: str, severity: int) -> Callable[[Tensor, KeyedRNG], Tensor]:
    return lambda x, rng: corruptions.corrupt(name, x, severity, rng=rng)


def _published(options: Any, images: ImageDataset) -> list[Condition]:
    """The corruptions in a folder, of the images that the clean ones are."""
    root = Path(options.published)
    held = corruption_sets.corruptions(root)
    for name in options.corruptions:
        if name not in held:
            raise unknown_name(name, held, f"corruption in {root}")
    names = list(dict.fromkeys(options.corruptions or held))
    read = partial(_read, root, images, options.size)
    return [Condition(name, level, partial(read, name, level)) for name, level in _grid(names, options)]


def _common(options: Any, images: ImageDataset) -> ImageDataset:
    """The clean images whose corrupted ones the folder holds: all of them where it is the whole published set."""
    root = Path(options.published)
    name = (options.corruptions or corruption_sets.corruptions(root))[0]
    found = corruption_sets.read(root, name, options.severities[0], classes=images.classes, size=options.size)
    rows = torch.isin(images.index, found.index).nonzero()[:, 0]
    if not len(rows):
        raise InputError(f"{root} holds {len(found)} images, none of those asked for: leave --images out.")
    if len(rows) < len(images):
        print(f"{root} holds {len(found)} images a severity, {len(rows)} of the {len(images)} asked for", flush=True)
    return images.subset(rows)


def _read(root: Path, images: ImageDataset, size: int | None, name: str, severity: int) -> ImageDataset:
    found = corruption_sets.read(root, name, severity, classes=images.classes, size=size)
    rows = {number: row for row, number in enumerate(found.index.tolist())}
    numbers = images.index.tolist()
    if missing := [number for number in numbers if number not in rows]:
        raise InputError(f"{root} lacks image {missing[0]} of {name} at severity {severity}: unpack the whole set.")
    chosen = found.subset(torch.tensor([rows[number] for number in numbers]))
    if not torch.equal(chosen.labels, images.labels):
        raise InputError(f"The labels in {root} are not those of {images.name}: --data must be the set it was made of.")
    return chosen


def _grid(names: Sequence[str], options: Any) -> list[tuple[str, int]]:
    return [(name, severity) for name in names for severity in sorted(set(options.severities))]


def _folder(options: Any, held: run_folder.Run | None, models: Sequence[EvaluatedModel]) -> Path:
    """Where a measurement goes that was given no place: named after all that could make it another one."""
    names = "-".join(dict.fromkeys(model.name.replace(" ", "-").replace("/", "-") for model in models))
    parent = (held.folder if held else Path(options.runs)) / "corruptions"
    kind = f"-from-{Path(options.published).resolve().name}" if options.published else ""
    chosen = "".join(f"-{name}" for name in dict.fromkeys(options.corruptions))[:80]
    levels = sorted(set(options.severities))
    chosen += "" if levels == [1, 2, 3, 4, 5] else f"-at-{'-'.join(map(str, levels))}"
    return parent / f"{Path(options.data).stem}{kind}-{names[:80]}{chosen}-{options.images or 'all'}-s{options.seed}"
