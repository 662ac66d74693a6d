"""Load published weights into an architecture of this package."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError, choose
from forefend.models.classifiers.architectures import ARCHITECTURES
from forefend.models.classifiers.normalized import Normalized
from forefend.models.classifiers.state_dict import read_state

# Published name -> ours, in whole dotted parts and in this order.
_RESNET = {
    **{"layer1.": "stages.0.", "layer2.": "stages.1.", "layer3.": "stages.2.", "layer4.": "stages.3."},
    **{"downsample.": "shortcut.", "fc.": "linear."},
}
_RENAMES = {
    **dict.fromkeys(
        ("resnet18", "resnet20", "resnet32", "resnet34", "resnet44", "resnet50", "resnet56", "tinyresnet"), _RESNET
    ),
    "fastat": {"0.": "conv1.", "2.": "conv2.", "5.": "fc1.", "7.": "fc2."},
    "marabou": {"0.": "conv1.", "2.": "conv2.", "5.": "fc1.", "7.": "fc2.", "9.": "fc3."},
    "smallcnn": {"feature_extractor.": "", "classifier.": ""},
}
# Tensors of wrappers, profilers and BatchNorm that no prediction needs.
_BESIDE = ("mean", "std", "mu", "sigma", "new_mean", "new_std", "n_averaged", "total_ops", "total_params")
_WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and torch.compile, anywhere in a name


def load_weights(
    name: str,
    path: str | Path,
    *,
    mean: float | Sequence[float] | None,
    std: float | Sequence[float] | None,
    channels: int | None = None,
    classes: int | None = None,
    size: int | None = None,
) -> Normalized:
    """Load a published classifier from its state dict, in eval mode.

    Args:
        name: the architecture, a key of `ARCHITECTURES`.
        path: the file, `.safetensors` or torch's own format; pickled code is not run.
        mean: mean of the normalization of the training, in [0, 1] units; None raises.
        std: its standard deviation; mean 0 and std 1 for none.
        channels: channels of the images; None for the architecture's default.
        classes: expected number of logits; None for that of the weights.
        size: height and width of the images; None for the architecture's default.

    Raises:
        InputError: a file that cannot be read or holds other weights, another number of classes, no normalization.
    """
    path = Path(path)
    architecture = choose(name, ARCHITECTURES, "classifier architecture")
    state = read_state(path)
    _check_stored(state, {"mean": mean, "std": std}, path.name)
    state = _rename(state, _RENAMES.get(name, {}))
    given = {"channels": channels, "size": size}
    options: dict[str, Any] = {what: number for what, number in given.items() if number is not None}
    if _RENAMES.get(name) is _RESNET:
        options["projection"] = any(".shortcut." in key for key in state)
    # The meta device draws no random numbers.
    with torch.device("meta"):
        network = architecture(**options)
        state = without_wrapper(state, list(network.state_dict()))
        network = architecture(**options, classes=_classes(network, state, classes, path.name))
    _check_channels(network, state, path.name)
    _check_normalization(mean, std, next(network.parameters()))
    fill(network, state, f"{path.name} does not hold the weights of {name!r}")
    return Normalized(network, mean, std).eval()


def _rename(state: dict[str, Tensor], renames: dict[str, str]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        dotted = f".{key}"
        for theirs, ours in renames.items():
            dotted = dotted.replace(f".{theirs}", f".{ours}")
        renamed[dotted[1:]] = tensor
    return renamed


def without_wrapper(state: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors without the shortest prefix that has the first and the last of the network's names.

    Training code saves a network inside a wrapper (`module.`, `model.`, `1.`), at times beside a second copy of it, a
    normalization and a counter, which are left out.

    Args:
        state: the tensors of a file by name.
        names: the names of the network's tensors.
    """
    if not any(_WRAPPERS & set(name.split(".")) for name in names):
        state = {".".join(part for part in key.split(".") if part not in _WRAPPERS): state[key] for key in state}
    first, last = names[0], names[-1]
    found = [key.removesuffix(first) for key in state if f".{key}".endswith(f".{first}")]
    copies = sorted((prefix for prefix in found if prefix + last in state), key=len) or [""]
    own = {
        key.removeprefix(copies[0]): tensor for key, tensor in state.items() if not key.startswith(tuple(copies[1:]))
    }
    return {key: tensor for key, tensor in own.items() if key in names or key.rpartition(".")[2] not in _BESIDE}


def _matters(key: str, names: Iterable[str]) -> bool:
    """Whether a tensor that the network lacks shows that it is another network: it is inside one of its parts.

    `layer1.2.conv1.weight` is inside `layer1`, and `layer4.0.conv1.weight` continues `layer1`. A part of another name
    is a second head, a criterion or the like.
    """
    return _part(key) in map(_part, names)


def _part(key: str) -> str:
    return key.partition(".")[0].rstrip("0123456789")


def _check_channels(network: nn.Module, state: dict[str, Tensor], file: str) -> None:
    """Refuse weights for images of other channels."""
    name, first = next(network.named_parameters())
    inputs = state[name].shape[1] if name in state and state[name].ndim == first.ndim > 1 else 0
    for found, expected in ((1, 3), (3, 1)):
        if inputs and inputs * expected == first.shape[1] * found:  # a linear layer has three times the inputs
            raise InputError(
                f"The weights in {file} are for images with {found} channels, but the images have {expected}: "
                "pictures from a folder are read as RGB, or as gray with channels=1."
            )


def _classes(network: nn.Module, state: dict[str, Tensor], expected: int | None, file: str) -> int:
    """Return the number of classes of the weights, or `expected` if their last layer is not found."""
    last, bias = list(network.named_parameters())[-1]
    found = len(state[last]) if last in state and state[last].ndim == 1 else expected or len(bias)
    if expected is not None and expected != found:
        raise InputError(
            f"The weights in {file} have {found} classes and {expected} are needed: choose the data set of their "
            "training, or other weights."
        )
    return found


def fill(network: nn.Module, state: dict[str, Tensor], complaint: str) -> None:
    """Load the weights; every name and shape must agree.

    Args:
        network: the network, at times on the meta device; its tensors are replaced.
        state: its tensors by name.
        complaint: the begin of the error message.

    Raises:
        InputError: a tensor is missing, belongs to another network, has another shape or type, or is not finite. A
            warning tells of a further head or the like.
    """
    expected = network.state_dict()
    # Files from before torch 0.4.1 lack BatchNorm's count of batches, which evaluation does not read.
    state = {key: torch.tensor(0) for key in expected if key.endswith(".num_batches_tracked")} | state
    shapes = [
        f"{key} has shape {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    integers = [
        f"{key} has {state[key].dtype}"
        for key in expected
        if key in state and expected[key].is_floating_point() and not state[key].is_floating_point()
    ]
    missing = [key for key in expected if key not in state]
    others = [key for key in state if key not in expected]
    found = [
        _some("missing", missing),
        _some("not expected", others if missing or any(_matters(key, expected) for key in others) else []),
        _some("wrong shape", shapes),
        _some("wrong type", integers),
    ]
    if any(found):
        raise InputError(
            f"{complaint}: {'; '.join(filter(None, found))}; check the architecture, channels, classes and size."
        )
    if others:
        warnings.warn(f"{_some('The weights hold more, which the network does not use', others)}.", stacklevel=3)
    if not all(bool(state[key].isfinite().all()) for key in expected):
        raise InputError(f"{complaint}: some numbers are NaN or infinite; fetch the file again.")
    # Copies, as a file may hold one tensor under two names, or half the precision.
    own = {key: state[key].to(expected[key].dtype, copy=True).contiguous() for key in expected}
    network.load_state_dict(own, assign=True)


def _some(what: str, items: list[str]) -> str:
    shown = ", ".join(items[:3])
    return f"{what}: {shown}{f' and {len(items) - 3} more' if len(items) > 3 else ''}" if items else ""


def _check_stored(state: dict[str, Tensor], given: Mapping[str, Any], file: str) -> None:
    """Refuse another mean and std than those that the file holds beside the weights."""
    for names in (("mean", "std"), ("mu", "sigma"), ("new_mean", "new_std")):
        stored = [tensor.flatten() for name in names for key, tensor in state.items() if key.rpartition(".")[2] == name]
        if len(stored) != 2 or stored[0].amin() < 0 or stored[0].amax() > 1:  # not both, or in other units than [0, 1]
            continue
        for (what, number), own in zip(given.items(), stored, strict=True):
            value = torch.as_tensor(own if number is None else number, dtype=torch.float64).flatten()
            alike = len(own) == len(value) or 1 in (len(own), len(value))
            if alike and not torch.allclose(own.double(), value, rtol=0, atol=2e-3):
                raise InputError(
                    f"{file} stores the {what} {_numbers(own)} beside its weights, and {_numbers(value)} was given: "
                    "give the stored one, or save the weights without it."
                )


def _numbers(values: Tensor) -> str:
    return " ".join(f"{value:.4g}" for value in values.tolist())


def _check_normalization(mean: Any, std: Any, first: Tensor) -> None:
    """Refuse a mean or std for another number of channels, which broadcasting would accept."""
    for what, given in (("means", mean), ("stds", std)):
        count = len(given) if isinstance(given, Sequence) else 1
        if first.ndim == 4 and count not in (1, first.shape[1]):
            raise InputError(
                f"There are {count} {what} for {first.shape[1]} channels: give one, or one for each channel."
            )
