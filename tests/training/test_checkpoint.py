from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, preprocessor, same
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from forefend.checks import InputError
from forefend.recipes.base import Trainable
from forefend.recipes.state import TrainState
from forefend.runtime import files
from forefend.training.checkpoint import load, save


def stepped(network: nn.Module, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW) -> dict[str, Trainable]:
    """A trainable whose optimizer has taken two steps, so that it holds moments."""
    made = optimizer(network.parameters(), lr=0.01, **({"momentum": 0.9} if optimizer is torch.optim.SGD else {}))
    network.train()
    for _ in range(2):
        network(torch.rand(4, 1, 6, 6)).square().sum().backward()
        made.step()
    return {"network": Trainable({"network": network}, made, lambda progress: 1.0)}


def moments(trainable: Trainable) -> list[Any]:
    return [value for state in trainable.optimizer.state_dict()["state"].values() for value in state.values()]


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_load_restores_every_tensor_bit_for_bit(optimizer: type[torch.optim.Optimizer], tmp_path: Path) -> None:
    trainables, path = stepped(preprocessor(), optimizer), tmp_path / "checkpoint"
    save(path, trainables, TrainState())
    others = stepped(preprocessor(1), optimizer)
    load(path, others, TrainState())
    old, new = (p["network"].networks["network"].state_dict() for p in (trainables, others))
    assert same(list(old.values()), list(new.values()))
    assert old.keys() == new.keys()
    first, second = (moments(each["network"]) for each in (trainables, others))
    assert first
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_load_restores_every_field_of_the_state(tmp_path: Path) -> None:
    state = TrainState(
        step=7,
        threads=2,
        losses={"a/b": [0.1, 3]},
        per_image={"radius": torch.rand(5), "static/x": torch.arange(3)},
        perturbations=torch.tensor([[-127, 3]], dtype=torch.int8),
        lr_factor=0.1 + 0.2,
        plateau_loss=1 / 3,
        plateau_epochs=4,
        best_score=2 / 3,
        best_weights={"0.weight": torch.rand(2, 2, dtype=torch.float64)},
        best={"epoch": 3, "robust": 2 / 3},
        monitor_best=0.7,
        fallen_back=True,
    )
    assert all(getattr(state, f.name) != getattr(TrainState(), f.name) for f in fields(state) if f.name != "step")
    found = TrainState()
    save(tmp_path / "checkpoint", {}, state)
    load(tmp_path / "checkpoint", {}, found)
    for name, value in vars(state).items():
        torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=0)
    save(tmp_path / "checkpoint", {}, TrainState())
    load(tmp_path / "checkpoint", {}, found)
    assert found == TrainState()


def test_load_keeps_the_learning_rates(tmp_path: Path) -> None:
    trainables = stepped(preprocessor())
    trainables["network"].optimizer.param_groups[0]["lr"] = 1e-9
    save(tmp_path / "checkpoint", trainables, TrainState())
    others = stepped(preprocessor())
    load(tmp_path / "checkpoint", others, TrainState())
    assert others["network"].optimizer.param_groups[0]["lr"] == 0.01


def test_load_without_a_file_changes_nothing(tmp_path: Path) -> None:
    state = TrainState()
    load(tmp_path / "none", {}, state)
    assert state == TrainState()


def test_save_stores_shared_and_strided_tensors(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    save(tmp_path / "checkpoint", {}, TrainState(per_image={"a": base, "b": base, "c": base.view(2, 3).t()}))
    state = TrainState()
    load(tmp_path / "checkpoint", {}, state)
    assert torch.equal(state.per_image["c"], base.view(2, 3).t())


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _head(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:4])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _garbage(path: Path) -> None:
    path.write_bytes(os.urandom(1000))


def _foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def _foreign_metadata(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "pt"})


def _other_network(path: Path) -> None:
    save(path, stepped(classifier()), TrainState())


def _other_player(path: Path) -> None:
    save(path, {"other": stepped(preprocessor())["network"]}, TrainState())


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _zeroed_tail(path: Path) -> None:  # as after a power cut
    content = path.read_bytes()
    path.write_bytes(content[:-40] + bytes(40))


def _flipped_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def _other_step(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'\\"step\\": {\\"value\\": 1}') == 1
    path.write_bytes(content.replace(b'\\"step\\": {\\"value\\": 1}', b'\\"step\\": {\\"value\\": 2}'))


def _nan_in_the_average(path: Path) -> None:
    average = AveragedModel(preprocessor())
    save(path, stepped(preprocessor()), TrainState(step=1), average=average)
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors[next(name for name in tensors if name.startswith("/average/module"))].fill_(torch.nan)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "damage",
    [
        *(_cut, _head, _empty, _garbage, _foreign, _foreign_metadata, _other_network, _other_player, _folder),
        *(_zeroed_tail, _flipped_bit, _other_step, _nan_in_the_average),
    ],
    ids=lambda damage: damage.__name__[1:],
)
def test_load_of_a_damaged_or_foreign_file_raises(damage: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save(path, stepped(preprocessor()), TrainState(step=1))
    damage(path)
    with pytest.raises(InputError, match=r"checkpoint cannot be resumed \(.+\): .+ delete this file") as e:
        load(path, stepped(preprocessor()), TrainState())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", [True, False])
def test_load_into_other_networks_changes_nothing(kind: bool, tmp_path: Path) -> None:
    def network(seed: int, width: int) -> nn.Module:
        torch.manual_seed(seed)
        last = nn.Conv2d(3, width, 1) if kind else nn.Identity()
        return nn.Sequential(nn.Conv2d(1, 3, 1), last)

    save(tmp_path / "checkpoint", stepped(network(0, 1)), TrainState())
    other = nn.Sequential(*network(1, 2)) if kind else nn.Sequential(*network(1, 2), nn.Conv2d(3, 3, 1))
    trainables = stepped(other)
    before = [tensor.clone() for tensor in other.state_dict().values()]
    words = r"1\.weight of the network is \[1, 3, 1, 1\], not \[2, 3, 1, 1\]" if kind else "2.bias of the network is in"
    with pytest.raises(InputError, match=words):
        load(tmp_path / "checkpoint", trainables, TrainState())
    assert same(list(other.state_dict().values()), before)


def test_save_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint"
    save(path, {}, TrainState(step=1))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(files.os, step, fail)
            with pytest.raises(OSError, match="disk full"):
                save(path, {}, TrainState(step=2))
    found = TrainState()
    load(path, {}, found)
    assert found == TrainState(step=1)
    assert list(tmp_path.iterdir()) == [path]


def test_load_of_a_newer_format_raises_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    save_file({}, path, metadata={"format": "2", "skeleton": json.dumps({"layout": "unknown"})})
    with pytest.raises(InputError, match="has format 2"):
        load(path, {}, TrainState())
