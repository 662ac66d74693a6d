"""Read the state dict of a weights file without running code from it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from forefend.checks import InputError

_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
# Where training code puts the state dict; of several in one file the first of this order is read.
_NESTS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "classifier", "model_state", "net_state_dict"),
    *("weights", "params", *_AVERAGES),
)
_PLAIN = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}


@final
class _Skipped:
    """Takes the place of numpy scalars, arrays and options saved beside the weights."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_BESIDE = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray", "argparse.Namespace"),
]


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file by name, on the CPU, without outer nesting.

    Args:
        path: a safetensors file, or a state dict as torch saves it, whatever the suffix.

    Raises:
        InputError: the file is missing, damaged, of another kind, without a state dict, needs pickled code, or holds
            tensors that are not plain numbers.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}: check its path.")
    state = _read_safetensors(path) if _is_safetensors(path) else _unwrap(_read_torch(path), path)
    for name, tensor in state.items():
        if tensor.dtype not in _PLAIN or tensor.layout is not torch.strided or tensor.is_meta or tensor.is_nested:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
            raise InputError(
                f"The tensor {name} in {path.name} is not of plain numbers ({kind}): save the dense float weights."
            )
    return state


def _is_safetensors(path: Path) -> bool:
    """Return whether a file begins as safetensors, or else as torch's zip or pickle; refuse any other."""
    with path.open("rb") as file:
        start = file.read(64)
    if start[8:9] == b"{":
        return True
    if start.startswith((b"PK", b"\x80")):
        return False
    if not start:
        what = "is empty"
    elif start.startswith(b"version https://git-lfs"):
        what = "is a pointer of Git LFS"
    elif start.lstrip().startswith(b"<"):
        what = "is a web page"
    else:
        what = f"starts with {start[:8]!r}"
    raise InputError(
        f"The weights file {path.name} {what}, expected the format of safetensors or torch.save: fetch the file again."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, UnicodeError) as error:
        raise InputError(f"The weights file {path.name} is damaged ({error}): fetch it again.") from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([(_Skipped, name) for name in _BESIDE]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(
            f"The weights file {path.name} cannot be read without running its pickled code: "
            "if you trust it, load it yourself and torch.save(network.state_dict(), path)."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle may raise any type
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"The weights file {path.name} is damaged or no state dict ({reason}).") from error


def _unwrap(saved: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(8):  # a dictionary may hold itself
        if isinstance(saved, list | tuple):  # at times a network and its optimizer; of two networks none is chosen
            networks = [part for part in saved if isinstance(part, Mapping) and "param_groups" not in part]
            saved = networks[0] if len(networks) == 1 else None
        if not isinstance(saved, Mapping):
            break
        nests = [nest for nest in _NESTS if isinstance(saved.get(nest), Mapping | list | tuple) and saved[nest]]
        _tell_of_averages(nests, path)
        nested = saved[nests[0]] if nests else None
        if nested is None:
            state = {str(key): value for key, value in saved.items() if isinstance(value, Tensor)}
            if state:
                return state
        saved = nested
    raise InputError(
        f"The weights file {path.name} holds no state dict, expected names with tensors, bare or under one of "
        f"{', '.join(_NESTS)}: save torch.save(network.state_dict(), path)."
    )


def _tell_of_averages(nests: Sequence[str], path: Path) -> None:
    """Warn where a file holds the weights and an average of them, of which other libraries read the average."""
    if nests and nests[0] not in _AVERAGES and (averages := [nest for nest in nests if nest in _AVERAGES]):
        warnings.warn(
            f"{path.name} holds {nests[0]} and {averages[0]}: {nests[0]} is read; save the other alone to load it.",
            stacklevel=4,
        )
