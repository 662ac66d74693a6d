"""A classifier's card: one JSON file that says which architecture, which weights and which normalisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checks import InputError, unknown
from .normalised import Normalised
from .weights import load_weights


def load_card(path: str | Path, **shape: int) -> Normalised:
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
            raise unknown(key, _KINDS, f"key of a classifier's card ({path.name})")
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
