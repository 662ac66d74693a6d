"""Checkpoints: everything that is needed to resume a training run exactly, in one safetensors file.

Tensors are tensors of the file, and numbers are JSON in its metadata. The file is renamed into place, so that it is
never half written. Random numbers are keyed by step and need no state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.data.dataset import dataset_digest
from forefend.models.fingerprint import raw_bytes
from forefend.recipes.base import Networks, Recipe, Trainable
from forefend.recipes.state import TrainState
from forefend.runtime.files import FORMAT, check_format, write
from forefend.runtime.run_folder import check_same
from forefend.training.config import TrainingConfig


def manifest(
    recipe: Recipe, data: ImageDataset, networks: Networks, *, seed: int, config: TrainingConfig
) -> dict[str, Any]:
    """Return what a run must have in common with its checkpoint, as JSON values.

    The augmentation is left out, as the name of a function says little, and so are settings whose text holds an
    address in memory, which differs between processes.
    """
    return {
        "recipe": type(recipe).__name__,
        "settings": _without_addresses(recipe.settings()),
        "data": data.name,
        "images": len(data),
        "pixels": dataset_digest(data),
        "guides": [guide.fingerprint() for guide in networks.guides],
        "seed": seed,
        "config": _without_addresses(config.settings()),
    }


def save(
    path: Path,
    trainables: Mapping[str, Trainable],
    state: TrainState,
    *,
    average: AveragedModel | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, atomically.

    Args:
        path: the file.
        trainables: networks and optimizers.
        state: the state of the run.
        average: the average of the weights, if there is one.
        manifest: which training it is; another one is refused when it resumes.
    """
    tensors: dict[str, Tensor] = {}
    content = {
        "trainables": {name: _content(trainable) for name, trainable in trainables.items()},
        "average": dict(average.state_dict()) if average else {},
        "state": vars(state),
        "manifest": dict(manifest or {}),
    }
    skeleton = json.dumps(_flatten(content, "", tensors))
    metadata = {"format": str(FORMAT), "skeleton": skeleton, "digest": _digest(skeleton, tensors)}
    write(path, serialize(tensors, metadata=metadata))


def load(
    path: Path,
    trainables: Mapping[str, Trainable],
    state: TrainState,
    *,
    average: AveragedModel | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Restore a checkpoint in place; without a file nothing changes. The arguments are those of `save`.

    Raises:
        InputError: the file is damaged, has a newer format, or belongs to another training or other networks; nothing
            was changed.
    """
    if not path.exists():
        return
    with _one_sentence(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata()
        skeleton = metadata["skeleton"]
        check_format(metadata.get("format", FORMAT), path)
        digest = _digest(skeleton, tensors)
        if metadata.get("digest", digest) != digest:  # older files hold none
            raise ValueError("it was damaged after it was written")
        content = _unflatten(json.loads(skeleton), tensors)
        check_same(str(path), content["manifest"], json.loads(json.dumps(manifest or {})))
        for name, trainable in trainables.items():
            _check_shapes(trainable, content["trainables"][name])
        if average:
            average.load_state_dict(content["average"])
        for name, trainable in trainables.items():
            _restore(trainable, content["trainables"][name])
        vars(state).update(content["state"])


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Report any error in the file in one sentence."""
    try:
        yield
    except InputError:
        raise
    except (SafetensorError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be resumed ({reason}): choose another folder, or delete this file, and the run in "
            f"{path.parent} starts over; its other files serve."
        ) from None


def _content(trainable: Trainable) -> dict[str, Any]:
    networks = {name: dict(network.state_dict()) for name, network in trainable.networks.items()}
    return {"networks": networks, "optimizer": trainable.optimizer.state_dict()["state"]}


def _digest(skeleton: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(skeleton.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()


def _check_shapes(trainable: Trainable, content: Mapping[str, Any]) -> None:
    for name, network in trainable.networks.items():
        own, stored = network.state_dict(), content["networks"][name]
        for tensor in sorted(own.keys() ^ stored.keys()):
            raise ValueError(f"{tensor} of the {name} is in one of them alone")
        for tensor, value in own.items():
            if isinstance(value, Tensor) and value.shape != stored[tensor].shape:
                raise ValueError(f"{tensor} of the {name} is {list(stored[tensor].shape)}, not {list(value.shape)}")


def _restore(trainable: Trainable, content: Mapping[str, Any]) -> None:
    for name, network in trainable.networks.items():
        network.load_state_dict(content["networks"][name])
    groups = trainable.optimizer.state_dict()["param_groups"]
    moments = {int(number): values for number, values in content["optimizer"].items()}
    trainable.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _without_addresses(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if " at 0x" not in str(value)}


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return the JSON skeleton of nested dictionaries, and move their tensors to `tensors` under their paths."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {"mapping": {str(key): _flatten(item, f"{path}/{key}", tensors) for key, item in value.items()}}
    return {"value": value}


def _unflatten(skeleton: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in skeleton:
        return tensors[skeleton["tensor"]]
    if "mapping" in skeleton:
        return {key: _unflatten(item, tensors) for key, item in skeleton["mapping"].items()}
    return skeleton["value"]
