"""A classifier's card: one JSON file that says which architecture, which weights and which normalization."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from forefend.checks import InputError, unknown_name
from forefend.data import ImageDataset
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.fingerprint import fingerprint
from forefend.runtime import files


def load_card(path: str | Path, **shape: int) -> Normalized:
    """The classifier that a card describes, in evaluation mode.

    Args:
        path: a JSON object with `architecture` (a key of `ARCHITECTURES`), `weights` (a path from the card's own
            folder), `mean` and `std` (a number, or one for each channel), and where wanted `name` (what reports call
            it), `classes`, `channels` and `size`.
        shape: the last three, for a card that does not say.

    Raises:
        InputError: no such card, not JSON, a key that is missing, unknown or of the wrong kind, and all that
            `load_weights` refuses.
    """
    path = Path(path)
    card = read_card(path)
    numbers = shape | {key: card[key] for key in ("channels", "classes", "size") if key in card}
    weights = path.parent / card["weights"]
    return load_weights(card["architecture"], weights, mean=card["mean"], std=card["std"], **numbers)


def read_card(path: str | Path) -> dict[str, Any]:
    """What a card says, checked key by key; `name` is the file's own where the card gives none.

    Args:
        path: as for `load_card`.

    Raises:
        InputError: no such card, not JSON, or a key that is missing, unknown or of the wrong kind.
    """
    path = Path(path)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The card {path} cannot be read ({error.strerror}): check its path.") from error
    except ValueError as error:
        raise InputError(f"The card {path} is not JSON ({error}).") from error
    if not isinstance(card, dict):
        raise InputError(
            f"The card {path} holds a {type(card).__name__}, expected an object with {', '.join(_NEEDED)}."
        )
    for key in card:
        if key not in _KINDS:
            raise unknown_name(key, _KINDS, f"key of a classifier's card ({path.name})")
    missing = [key for key in _NEEDED if key not in card]
    if missing:
        hint = '; "mean": 0 and "std": 1 mean none' if {"mean", "std"} & set(missing) else ""
        raise InputError(
            f"The card {path} lacks {', '.join(missing)}: add what the classifier's publisher states{hint}."
        )
    for key, value in card.items():
        fits, wanted = _KINDS[key]
        if not fits(value):
            raise InputError(f"The card {path} says {key} is {value!r}, expected {wanted}.")
    return {"name": path.stem} | card


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pixel(value: Any) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return bool(numbers) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)


_TEXT: tuple[Callable[[Any], bool], str] = (_is_text, "a text")
_COUNT: tuple[Callable[[Any], bool], str] = (_is_count, "a whole number above 0")
_PIXEL: tuple[Callable[[Any], bool], str] = (_is_pixel, "a number, or a list of one for each channel")
_NEEDED = ("architecture", "weights", "mean", "std")
_KINDS = {
    "architecture": _TEXT,
    "channels": _COUNT,
    "classes": _COUNT,
    "mean": _PIXEL,
    "name": _TEXT,
    "size": _COUNT,
    "std": _PIXEL,
    "weights": _TEXT,
}


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier and how to find it again.

    Args:
        name: what tables call it.
        spec: the word that stands for it.
        network: images in [0, 1] to logits.
        architecture: its name on the classifiers' shelf.
        mean: given with the word, for weights that need it.
        std: likewise.
    """

    name: str
    spec: str
    network: nn.Module
    architecture: str
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def config(self) -> dict[str, Any]:
        """What a run's config keeps of it."""
        return {
            "name": self.name,
            "spec": self.spec,
            "mean": self.mean,
            "std": self.std,
            "fingerprint": fingerprint(self.network),
        }


def classifier_of_card(card: Path, name: str, spec: str, **shape: int) -> NamedClassifier:
    return NamedClassifier(name, spec, load_card(card, **shape), read_card(card)["architecture"])


def save_classifier(folder: Path, network: nn.Module, architecture: str, images: ImageDataset) -> None:
    """Write `weights.safetensors` and `classifier.json`, a card that loads as any other."""
    if not isinstance(network, Normalized):
        raise TypeError("Only a Normalized classifier has a card.")
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.network.state_dict().items()}
    files.write(folder / "weights.safetensors", save(tensors, metadata={"format": "pt"}))
    channels, size, _ = images.shape
    card = {
        "architecture": architecture,
        "weights": "weights.safetensors",
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "channels": channels,
        "classes": len(images.classes),
        "size": size,
    }
    files.write_json(folder / "classifier.json", card)
