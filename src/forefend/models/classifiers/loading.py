"""Load the classifier that a text names; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forefend.checks import InputError, unknown_name
from forefend.models.classifiers.architectures import ARCHITECTURES
from forefend.models.classifiers.model_card import NamedClassifier, load_card, read_card
from forefend.models.classifiers.pretrained import load_weights

CARD = "classifier.json"  # in the folder of a run


def load(
    spec: str,
    *,
    channels: int | None = None,
    size: int | None = None,
    classes: int | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    download: bool = False,
) -> NamedClassifier:
    """Load the classifier that a text names, in eval mode.

    Args:
        spec: a run's folder, a JSON card, or `architecture:weights`.
        channels: channels of the images; None for what the classifier names, else the architecture's default.
        size: height and width of the images; None likewise.
        classes: expected number of logits; None for that of the weights.
        mean: normalization of weights that do not name theirs, in [0, 1] units.
        std: likewise.
        download: fetch weights that are missing.

    Raises:
        InputError: the text names nothing, or its files are damaged.
    """
    path, (name, colon, weights) = Path(spec), spec.partition(":")
    shape = {"channels": channels, "size": size, "classes": classes}
    if path.suffix == ".json":
        return _from_card(path, spec, shape)
    if path.is_dir():
        return _from_run(path, shape)
    if colon:
        network = load_weights(name, weights, mean=mean, std=std, **shape)
        return NamedClassifier(Path(weights).stem, spec, network, name, mean, std)
    if path.is_file():
        raise InputError(
            f"{spec} is a file of weights without an architecture: give ARCHITECTURE:{spec}, or evaluate a network "
            "of your own class in Python with forefend.evaluate."
        )
    if spec.partition("@")[0] in ARCHITECTURES:
        raise InputError(f"{spec} is an architecture without weights: give {spec.partition('@')[0]}:WEIGHTS.")
    raise unknown_name(spec, ARCHITECTURES, "run, JSON card or architecture")


def needs_shape(spec: str) -> bool:
    """Whether `load` must be told for which images the classifier is."""
    path = Path(spec)
    if path.is_dir():
        return False
    if path.suffix == ".json":
        return not {"channels", "size"} <= read_card(path).keys()
    return ":" in spec


def _from_run(folder: Path, shape: dict[str, int | None]) -> NamedClassifier:
    card = folder / CARD
    if not card.exists():
        raise InputError(f"{folder} holds no classifier: it has no {CARD}; finish its training first.")
    found = _from_card(card, str(folder), shape)
    return NamedClassifier(folder.name, str(folder), found.network, found.architecture)


def _from_card(path: Path, spec: str, shape: dict[str, int | None]) -> NamedClassifier:
    card = read_card(path)
    given = {what: number for what, number in shape.items() if number is not None}
    return NamedClassifier(card["name"], spec, load_card(path, **given), card["architecture"])
