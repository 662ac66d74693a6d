"""The guides of a run, found by fingerprint: in its folder, beside it, or where they were."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.models.card_file import read_card_file
from forefend.models.classifiers import ARCHITECTURES, Normalized
from forefend.models.classifiers.model_card import NamedClassifier, save_classifier
from forefend.models.fingerprint import fingerprint
from forefend.runtime.files import folder_name
from forefend.runtime.run_folder import Run
from forefend.training.resolve_classifiers import resolve_classifier

COPIES = "guides"  # the folder of a run that holds copies of its guides
LARGEST_COPY = 50_000_000  # bytes of all guides together; larger ones are not copied
Split = Callable[[str], ImageDataset]


def guides_of_run(
    folder: str | Path, split: Split, *, runs: str | Path = "runs", given: Sequence[NamedClassifier] = ()
) -> list[NamedClassifier]:
    """Load the guides of a run, also after its folder was moved or renamed.

    A guide is looked for among the classifiers that are given, in the folder of the run, beside it, at the path of the
    training and in `runs`. It counts only if its fingerprint is that of the training.

    Args:
        folder: the folder of the run.
        split: returns the images of `"train"` or `"test"`, for weights whose shape they give.
        runs: a folder of other runs.
        given: classifiers that may be among the guides.

    Returns:
        The guides, with the names that the training gave them; none for a run without guides.

    Raises:
        InputError: a guide is nowhere, or another classifier lies in its place.
    """
    run = Run(Path(folder))
    if not (run.folder / "config.json").exists():
        return []
    learned = _prints_of_defense(run.folder)
    return [
        _guide_of(entry, _accepted(entry, learned), run.folder, split, Path(runs), given)
        for entry in run.config.get("guides", [])
    ]


def guide_entries(guides: Sequence[NamedClassifier], folder: Path) -> list[dict[str, Any]]:
    """Return the entries of guides in the config of the run in `folder`.

    Paths are relative to the run. A run that is resumed keeps its entries if the fingerprints are equal.
    """
    entries = [{**guide.config(), "spec": _relative(guide.spec, folder)} for guide in guides]
    held = Run(folder).config.get("guides", []) if (folder / "config.json").exists() else []
    same = [entry.get("fingerprint") for entry in held] == [entry["fingerprint"] for entry in entries]
    return list(held) if same else entries


def copy_guides(guides: Sequence[NamedClassifier], folder: Path, images: ImageDataset) -> None:
    """Copy the weights and cards of small guides into the folder of their run, so that it holds all it needs.

    Args:
        guides: the guides.
        folder: the folder of the run.
        images: images that the guides classify.
    """
    size = sum(tensor.nbytes for guide in guides for tensor in guide.network.state_dict().values())
    if size > LARGEST_COPY:
        print(f"guides of {size / 1e6:.0f} MB are not copied: keep them beside {folder} when you move it", flush=True)
        return
    for guide in guides:
        print_, place = fingerprint(guide.network), folder / COPIES
        if isinstance(guide.network, Normalized) and guide.architecture in ARCHITECTURES:
            save_classifier(
                place / folder_name(f"{guide.name}-{print_[:4]}"), guide.network, guide.architecture, images
            )
            continue
        for file in filter(Path.is_file, map(Path, guide.spec.split(":"))):
            if file.suffix != ".py":
                place.mkdir(exist_ok=True)
                shutil.copy(file, place)


def _accepted(entry: Mapping[str, Any], learned: Mapping[str, set[str]]) -> set[str] | None:
    """Return the fingerprints that an entry in the config and the card of the defense agree on; None for any."""
    known = learned.get(entry["name"])
    if entry.get("fingerprint") is None:  # the config of an older version
        return known
    return {entry["fingerprint"]} & known if known else {entry["fingerprint"]}


def _guide_of(
    entry: Mapping[str, Any],
    accepted: set[str] | None,
    folder: Path,
    split: Split,
    runs: Path,
    given: Sequence[NamedClassifier],
) -> NamedClassifier:
    """Return the first accepted classifier among those that are given, then at the guide's path, then elsewhere."""
    others = list[str]()
    for named in given:
        if accepted and fingerprint(named.network) in accepted:
            return named
    places = [*_by_path(entry["spec"], folder, runs), *(_by_content(folder, runs) if accepted else ())]
    for place in dict.fromkeys(places):
        try:
            found = resolve_classifier(place, split, mean=entry["mean"], std=entry["std"], runs=runs)
        except InputError as fault:
            others.append(str(fault).rstrip("."))
            continue
        if accepted is None or fingerprint(found.network) in accepted:
            return replace(found, name=entry["name"])
        others.append(f"{place} is no longer the classifier that this run learned from")
    reason = f" ({others[0]})" if others else ""
    raise InputError(
        f"The guide {entry['name']} of {folder} is neither in that folder nor beside it, nor at {entry['spec']} or in "
        f"{runs}{reason}: give its folder with --classifiers, or the folder that holds it with --runs."
    )


def _by_path(spec: str, folder: Path, runs: Path) -> Iterator[str]:
    """Yield a guide's spec with its paths in the run, beside it and in `runs`, and then as it is.

    A config may come from others: it starts no process, and no Python file of a run is executed.
    """
    if spec.startswith(("process:", "http:")):
        return
    first, colon, _ = spec.partition(":")
    module = Path(first.replace(".", "/")) if colon and not first.endswith(".py") else Path(first)
    if any(folder.resolve() in path.resolve().parents for path in (module, module.with_suffix(".py")) if colon):
        return
    for base in (folder / COPIES, folder, folder.resolve().parent, runs) if ".py:" not in spec else ():
        yield from (moved for moved in _moved(spec, base) if moved != spec)
    if ":" in spec or len(Path(spec).parts) == 1 or Path(spec).exists():
        yield spec


def _by_content(folder: Path, runs: Path) -> Iterator[str]:
    """Yield the folders of classifiers in the run, beside it and in `runs`."""
    for base in (folder / COPIES, folder, folder.resolve().parent, runs):
        yield from (str(card.parent) for card in sorted(base.glob("*/classifier.json")))


def _moved(spec: str, base: Path) -> list[str]:
    """Return a spec with its paths, and with the names of its files, in another folder, if they are there."""
    by_path = _with_paths(spec, lambda path: base / path if _names(spec, base / path) else path)
    by_name = _with_paths(spec, lambda path: base / path.name if _names(spec, base / path.name) else path)
    return [by_path, by_name]


def _names(spec: str, path: Path) -> bool:
    """Whether a part of a spec, put into a folder, names what is there: a file, or the folder of a classifier."""
    return path.is_file() or (path.is_dir() and (":" not in spec or spec.startswith("hf:")))


def _with_paths(spec: str, change: Callable[[Path], Path]) -> str:
    """Return a spec with its paths changed, such as the last part of `resnet20:weights.pt` and of `timm:NAME:FILE`."""
    first, *others = spec.split(":")
    return ":".join(
        [first, *(change(Path(part)).as_posix() for part in others)] if others else [change(Path(first)).as_posix()]
    )


def _relative(spec: str, folder: Path) -> str:
    """Return a spec with its paths relative to the run, but for absolute ones that are not beside it, and code."""

    def relative(path: Path) -> Path:
        beside = folder.resolve().parent in path.resolve().parents
        if not _names(spec, path) or (path.is_absolute() and not beside):
            return path
        return Path(os.path.relpath(path.resolve(), folder.resolve()))

    return spec if ".py:" in spec else _with_paths(spec, relative)


def _prints_of_defense(folder: Path) -> dict[str, set[str]]:
    """Return the fingerprints of the guides on the card of a defense, by name."""
    found: dict[str, set[str]] = {}
    with suppress(InputError, TypeError, KeyError, AttributeError):
        content, _ = read_card_file(folder / "defense.json")
        for guide in content["guides"]:
            found.setdefault(guide["name"], set()).add(guide["fingerprint"])
    return found
