"""Cards beside weights: JSON with digests that show what was edited or damaged. This module does not need torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forefend.checks import InputError
from forefend.runtime.files import check_regular, content_digest, read_versioned, write, write_versioned

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "weights.safetensors"


def write_card(path: Path, card: Mapping[str, Any], weights: bytes) -> None:
    """Write `weights.safetensors`, and then its card to `path`, with a digest of each field and of the weights."""
    write(path.parent / WEIGHTS, weights)
    content = {**card, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_versioned(path, {**content, "digests": {name: content_digest(value) for name, value in content.items()}})


def read_card_file(path: Path) -> tuple[Any, str | None]:
    """Return the content of a card, and the SHA-256 of its weights; None for a card without digests.

    Raises:
        InputError: there is no card, it is not JSON, or it was edited after it was written.
    """
    content = read_versioned(path)
    if not isinstance(content, dict):
        return content, None
    if "digests" not in content:
        content.pop("weights_sha256", None)
        return content, None
    digests = content.pop("digests")
    if not isinstance(digests, dict):
        digests = {}
    for name in sorted(content.keys() | digests.keys() | {"weights_sha256"}):
        if name not in content or digests.get(name) != content_digest(content[name]):
            raise InputError(
                f"{path} was edited after it was written (its {name}): restore it, or remove its digests to use it "
                "unverified."
            )
    return content, content.pop("weights_sha256")


def read_weights(path: Path, sha256: str | None) -> bytes:
    """Return the bytes of a file of weights.

    Raises:
        InputError: they are not those that the card was written for.
    """
    check_regular(path)
    weights = path.read_bytes()
    if sha256 is not None and hashlib.sha256(weights).hexdigest() != sha256:
        raise InputError(f"{path} is damaged, or holds other weights than its card was written for: restore the file.")
    return weights


def check_weights(network: nn.Module, file: Path) -> None:
    """Refuse weights that were read from a file and hold NaN, infinite numbers, or only zeros.

    Raises:
        InputError: they do.
    """
    weights = dict(network.named_parameters())
    broken = [name for name, tensor in network.state_dict().items() if not bool(tensor.isfinite().all())]
    if broken:
        raise InputError(f"{file} holds NaN or infinite numbers in {broken[0]}: copy the file again, or train again.")
    if weights and not any(bool(tensor.any()) for tensor in weights.values()):
        raise InputError(f"{file} holds only zeros: copy the file again, or train again.")
