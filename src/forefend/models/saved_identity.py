"""The identity of a defense, also from the two files of its folder. This module does not need torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

from forefend.checks import InputError
from forefend.models.card_file import WEIGHTS, read_card_file, read_weights
from forefend.runtime.files import content_digest

INTEGERS = {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


def identity_in(folder: Path) -> str:
    """Return `Defense.identity` of the weights in a folder from its two files; no network is built.

    Raises:
        InputError: the card was edited, or a file is damaged or missing.
    """
    return _read(folder, verified=False)


def verified_identity_in(folder: Path) -> str:
    """Return what `identity_in` does, in twice the time, if the weights are those that the card was written for.

    Raises:
        InputError: as for `identity_in`, or they are other weights.
    """
    return _read(folder, verified=True)


def _read(folder: Path, *, verified: bool) -> str:
    card, sha256 = read_card_file(folder / "defense.json")
    try:
        own = _fingerprint(read_weights(folder / WEIGHTS, sha256 if verified else None))
    except FileNotFoundError:
        raise InputError(f"{folder} has no {WEIGHTS} beside defense.json: copy the whole folder.") from None
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{folder}/{WEIGHTS} is damaged ({error}): restore the file.") from None
    try:
        return identity_of(own, card["architecture"], card["settings"])
    except (KeyError, TypeError):
        raise InputError(f"{folder}/defense.json is no card of a defense: save the defense again.") from None


def identity_of(fingerprint: str, architecture: str, settings: Mapping[str, Any]) -> str:
    """Return the identity of a defense.

    Args:
        fingerprint: of its tensors.
        architecture: its name.
        settings: the arguments that rebuild it.
    """
    return f"{fingerprint}:{content_digest([architecture, settings])}"


def _fingerprint(weights: bytes) -> str:
    """Return what `fingerprint` finds of the network that loads these weights."""
    digest = hashlib.sha256()
    for name, held in sorted(deserialize(weights), key=lambda named: named[0]):  # type: ignore[no-untyped-call]
        dtype, data = _loaded(held["dtype"], held["data"])
        digest.update(f"{name}|torch.{dtype}|{tuple(held['shape'])}|".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def _loaded(dtype: str, data: bytes) -> tuple[str, bytes]:
    """Return type and bytes of a tensor once it is loaded: networks are built in float32."""
    if dtype == "F32":
        return "float32", data
    return ("float32", _WIDENED[dtype](data)) if dtype in _WIDENED else (INTEGERS[dtype], data)


def _from_numpy(dtype: str) -> Callable[[bytes], bytes]:
    def widened(data: bytes) -> bytes:
        import numpy  # takes a tenth of a second, and few weights need it

        return numpy.frombuffer(data, dtype).astype("<f4").tobytes()

    return widened


def _from_bfloat16(data: bytes) -> bytes:
    """The upper half of each float32."""
    widened = bytearray(2 * len(data))
    widened[2::4], widened[3::4] = data[::2], data[1::2]
    return bytes(widened)


_WIDENED = {"F16": _from_numpy("<f2"), "F64": _from_numpy("<f8"), "BF16": _from_bfloat16}
