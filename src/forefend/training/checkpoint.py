"""Checkpoint: everything needed to go on exactly where training stopped, in one safetensors file.

Networks, optimizers and the recipe's memory are tensors; the numbers around them are JSON in the file's metadata. One
file renamed into place cannot be half old and half new. Random numbers are keyed by step and leave no state to keep.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from forefend.checks import InputError
from forefend.recipes.base import Memory, Trainable
from forefend.runtime.files import write
from forefend.runtime.run_folder import check_same


def store(
    path: Path,
    players: Mapping[str, Trainable],
    memory: Memory,
    progress: Mapping[str, Any],
    begun: Mapping[str, Any] | None = None,
) -> None:
    """Write the whole state of training to `path`, atomically.

    Args:
        path: the checkpoint file.
        players: who learns.
        memory: the recipe's tensors.
        progress: JSON values of the loop itself: the next step, running sums.
        begun: JSON values that say which training it is; another one is refused what was stored.
    """
    tensors: dict[str, Tensor] = {}
    state = {
        "players": {name: _state(player) for name, player in players.items()},
        "memory": dict(memory),
        "progress": dict(progress),
        "begun": dict(begun or {}),
    }
    skeleton = _flatten(state, "", tensors)
    write(path, save(tensors, metadata={"skeleton": json.dumps(skeleton)}))


def restore(
    path: Path, players: Mapping[str, Trainable], memory: Memory, begun: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Put back what `store` wrote into the players and the memory, in place; None when there is no file.

    Args:
        path: the checkpoint file.
        players: who learns.
        memory: the recipe's tensors.
        begun: which training it shall be; not asked where None, nor of files that do not say.

    Returns:
        The loop's own progress.

    Raises:
        InputError: the file is damaged, or belongs to another training or other networks; nothing was put back.
    """
    if not path.exists():
        return None
    with _one_sentence(path), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        state = _unflatten(json.loads(file.metadata()["skeleton"]), tensors)
    if begun and state.get("begun"):
        check_same(str(path), state["begun"], json.loads(json.dumps(begun)))
    with _one_sentence(path):
        for name, player in players.items():
            _check_fits(player, state["players"][name])
        for name, player in players.items():
            _put_back(player, state["players"][name])
    memory.update(state["memory"])
    progress: dict[str, Any] = state["progress"]
    return progress


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Whatever is wrong with the file in one sentence."""
    try:
        yield
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be resumed from ({reason}): choose another folder, or delete it to start over."
        ) from None


def _state(player: Trainable) -> dict[str, Any]:
    networks = {name: dict(network.state_dict()) for name, network in player.networks.items()}
    return {"networks": networks, "optimizer": player.optimizer.state_dict()["state"]}


def _check_fits(player: Trainable, state: Mapping[str, Any]) -> None:
    """Refuse other networks before any of theirs is put back."""
    for name, network in player.networks.items():
        own, theirs = network.state_dict(), state["networks"][name]
        for tensor in sorted(own.keys() ^ theirs.keys()):
            raise ValueError(f"{tensor} of the {name} is in one of them alone")
        for tensor, value in own.items():
            if isinstance(value, Tensor) and value.shape != theirs[tensor].shape:
                raise ValueError(f"{tensor} of the {name} is {list(theirs[tensor].shape)}, not {list(value.shape)}")


def _put_back(player: Trainable, state: Mapping[str, Any]) -> None:
    for name, network in player.networks.items():
        network.load_state_dict(state["networks"][name])
    groups = player.optimizer.state_dict()["param_groups"]
    moments = {int(number): values for number, values in state["optimizer"].items()}
    player.optimizer.load_state_dict({"state": moments, "param_groups": groups})


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The JSON skeleton of a nested dictionary; its tensors move to `tensors` under the path that leads to them."""
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
