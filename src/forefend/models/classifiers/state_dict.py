"""Read the state dict of a weights file without running code from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from forefend.checks import InputError

_TORCH_SUFFIXES = (".pt", ".pth", ".th")
_NESTS = ("state_dict", "model_state_dict", "model", "net", "network")
_PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, on the CPU, without outer nesting and common prefixes.

    Args:
        path: `.safetensors`, or `.pt`, `.pth`, `.th` as torch saves a state dict.

    Raises:
        InputError: the file is missing, damaged, of another kind, without a state dict, or needs pickled code.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}: check its path.")
    if path.suffix == ".safetensors":
        return _strip(_read_safetensors(path))
    if path.suffix in _TORCH_SUFFIXES:
        return _strip(_unwrap(_read_torch(path), path))
    raise InputError(
        f"The weights file {path.name} ends in {path.suffix!r}, expected .safetensors or one of "
        f"{', '.join(_TORCH_SUFFIXES)}: save the network's state dict as one of these."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"The weights file {path.name} is damaged ({error}): fetch it again.") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"The weights file {path.name} cannot be read without running its pickled code: "
            "if you trust it, load it yourself and torch.save(network.state_dict(), path)."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"The weights file {path.name} is damaged or no state dict ({reason}).") from error


def _unwrap(saved: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(saved, Mapping):
        if saved and all(isinstance(value, Tensor) for value in saved.values()):
            return {str(key): value for key, value in saved.items()}
        saved = next((saved[nest] for nest in _NESTS if isinstance(saved.get(nest), Mapping)), None)
    raise InputError(
        f"The weights file {path.name} holds no state dict, expected names with tensors, bare or under one of "
        f"{', '.join(_NESTS)}: save torch.save(network.state_dict(), path)."
    )


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            return _strip({key.removeprefix(prefix): value for key, value in state.items()})
    return state
