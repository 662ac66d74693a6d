"""A classifier's card: a JSON file that names its architecture, weights and normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from forefend.checks import InputError, unknown_name
from forefend.data import ImageDataset
from forefend.models.card_file import WEIGHTS, read_card_file, read_weights, write_card
from forefend.models.classifiers.architectures import ARCHITECTURES
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.pretrained import load_weights
from forefend.models.fingerprint import fingerprint
from forefend.runtime import files


@dataclass(frozen=True)
class NamedClassifier:
    """A classifier and the text that it was resolved from.

    Args:
        name: its name in tables.
        spec: the text that `load` or `resolve_classifier` resolves to it.
        network: maps images `(B, C, H, W)` in [0, 1] to logits `(B, K)`.
        architecture: a key of `ARCHITECTURES`.
        mean: normalization given with the text, for weights without a card.
        std: likewise.
    """

    name: str
    spec: str
    network: nn.Module
    architecture: str
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None

    def config(self) -> dict[str, Any]:
        """The entry in the config of a run: JSON values that find the classifier again."""
        found = {"name": self.name, "spec": self.spec, "mean": self.mean, "std": self.std}
        return found | {"fingerprint": fingerprint(self.network)}


def load_card(path: str | Path, **shape: int) -> Normalized:
    """Load the classifier that a card describes, in evaluation mode.

    Args:
        path: a JSON object with `architecture` (a key of `ARCHITECTURES`), `weights` (a path relative
            to the card's folder), `mean` and `std` (a number, or one for each channel), and
            optionally `name` (for reports), `classes`, `channels` and `size`.
        shape: `classes`, `channels` and `size` of a card without them.

    Raises:
        InputError: `read_card` or `load_weights` refuses the card.
    """
    path = Path(path)
    card = read_card(path)
    numbers = shape | {key: card[key] for key in ("channels", "classes", "size") if key in card}
    weights = path.parent / card["weights"]
    if "weights_sha256" in card:
        read_weights(weights, card["weights_sha256"])
    return load_weights(card["architecture"], weights, mean=card["mean"], std=card["std"], **numbers)


def read_card(path: str | Path) -> dict[str, Any]:
    """Read a card and check each of its keys; `name` defaults to the name of the file.

    Args:
        path: as for `load_card`.

    Raises:
        InputError: there is no such card, it is not JSON, or a key is missing, unknown or of the
            wrong type.
    """
    path = Path(path)
    card, sha256 = read_card_file(path)
    if not isinstance(card, dict):
        raise InputError(
            f"The card {path} holds a {type(card).__name__}, expected an object with {', '.join(_REQUIRED)}."
        )
    for key, value in card.items():
        if key not in _KINDS:
            raise unknown_name(key, _KINDS, f"key of a classifier's card ({path.name})")
        accepts, expected = _KINDS[key]
        if not accepts(value):
            raise InputError(f"The card {path} gives {value!r} as {key}, expected {expected}.")
    missing = [key for key in _REQUIRED if key not in card]
    if missing:
        hint = '; "mean": 0 and "std": 1 mean none' if {"mean", "std"} & set(missing) else ""
        raise InputError(f"The card {path} lacks {', '.join(missing)}: add the values that were published{hint}.")
    return {"name": path.stem} | card | ({"weights_sha256": sha256} if sha256 else {})


def save_classifier(folder: Path, network: nn.Module, architecture: str, images: ImageDataset) -> None:
    """Save a classifier as `weights.safetensors` and its card `classifier.json`.

    Args:
        folder: the folder to write to.
        network: a `Normalized` classifier.
        architecture: a key of `ARCHITECTURES`.
        images: images that the classifier was trained on.
    """
    if not isinstance(network, Normalized):
        raise TypeError("Only a Normalized classifier has a card.")
    tensors = {name: tensor.contiguous().cpu() for name, tensor in network.network.state_dict().items()}
    channels, size, _ = images.shape
    card = {
        "architecture": architecture,
        "weights": WEIGHTS,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "channels": channels,
        "classes": len(images.classes),
        "size": size,
    }
    write_card(folder / "classifier.json", card, save(tensors, metadata={"format": "pt"}))


def check_trainable(named: NamedClassifier) -> None:
    """Refuse a classifier that could not be saved with a card after its training.

    Raises:
        InputError: it is of another library, or a network of the user's own.
    """
    if named.architecture not in ARCHITECTURES:
        raise InputError(
            f"{named.spec} is no architecture of forefend, and this recipe trains it: give it as a guide, or train it "
            "in Python with forefend.fit."
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and files.is_writable(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pixel(value: Any) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return bool(numbers) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)


_REQUIRED = ("architecture", "weights", "mean", "std")
_KINDS = {
    **dict.fromkeys(("architecture", "name", "weights"), (_is_text, "a text without control characters")),
    **dict.fromkeys(("channels", "classes", "size"), (_is_count, "a whole number above 0")),
    **dict.fromkeys(("mean", "std"), (_is_pixel, "a number, or a list of one for each channel")),
}
