from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.narrow_classifiers import BIG
from safetensors.torch import save_file
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers import ARCHITECTURES, build
from forefend.models.classifiers.pretrained import load_weights

PLAIN = {"mean": 0, "std": 1}


def net_of(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(1)
    net = build(name, **{"channels": 1, "classes": 10, "size": 16, **settings})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


def same(net: nn.Module, loaded: nn.Module, size: int = 16) -> bool:
    x = torch.rand(3, net.settings["channels"], size, size)
    return torch.equal(net(x), loaded(x))


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in BIG])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_in_our_own_names_come_back(name: str, suffix: str, tmp_path: Path) -> None:
    net, path = net_of(name), tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(net.state_dict(), path)
    loaded = load_weights(name, path, channels=1, size=16, **PLAIN)
    assert same(net, loaded)
    assert not any(module.training for module in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("nest", [[], ["state_dict"], ["model"], ["net", "state_dict"], ["model_state_dict"]])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model."])
def test_nesting_and_prefixes_are_taken_off(nest: list[str], prefix: str, tmp_path: Path) -> None:
    net, path = net_of("cnn"), tmp_path / "w.pt"
    saved: dict[str, object] = {prefix + key: value for key, value in net.state_dict().items()}
    for key in nest:
        saved = {"epoch": 3, key: saved, "optimizer": {"lr": 0.1}}
    torch.save(saved, path)
    assert same(net, load_weights("cnn", path, channels=1, size=16, **PLAIN))


@pytest.mark.parametrize("projection", [False, True])
def test_the_shortcut_of_a_resnet_is_read_from_its_keys(projection: bool, tmp_path: Path) -> None:
    net, path = net_of("resnet20", projection=projection), tmp_path / "w.th"
    torch.save(net.state_dict(), path)
    loaded = load_weights("resnet20", path, channels=1, **PLAIN)
    assert loaded.network.settings["projection"] is projection
    assert same(net, loaded)


def test_the_number_of_classes_is_read_from_the_weights(tmp_path: Path) -> None:
    net, path = net_of("cnn", classes=7), tmp_path / "w.pt"
    torch.save(net.state_dict(), path)
    assert same(net, load_weights("cnn", path, channels=1, size=16, **PLAIN))
    assert same(net, load_weights("cnn", path, channels=1, size=16, classes=7, **PLAIN))
    with pytest.raises(InputError, match=r"w\.pt have 7 classes and 10"):
        load_weights("cnn", path, channels=1, size=16, classes=10, **PLAIN)


def test_loading_draws_no_random_number_and_shares_no_memory(tmp_path: Path) -> None:
    net, path = net_of("mlp", size=4), tmp_path / "w.pt"
    state = net.state_dict()
    torch.save(state | {"fc1.bias": state["fc2.bias"], "fc3.weight": state["fc3.weight"].half()}, path)
    torch.manual_seed(5)
    loaded = load_weights("mlp", path, channels=1, size=4, **PLAIN)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    places = [parameter.data_ptr() for parameter in loaded.parameters()]
    assert len(set(places)) == len(places)


def test_the_normalization_given_is_the_one_inside(tmp_path: Path) -> None:
    net, path = net_of("cnn", channels=3), tmp_path / "w.pt"
    torch.save(net.state_dict(), path)
    loaded = load_weights("cnn", path, channels=3, size=16, mean=(0.5, 0.25, 0.125), std=0.5)
    x = torch.rand(2, 3, 16, 16)
    mean = torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1)
    assert torch.equal(loaded(x), net((x - mean) / 0.5))


def broken(change: dict[str, Tensor | None]) -> dict[str, Tensor]:
    state = dict(net_of("cnn").state_dict()) | change
    return {key: value for key, value in state.items() if value is not None}


MISFITS = {
    "missing": (broken({"linear.weight": None}), r"'cnn': missing: linear\.weight; check"),
    "not expected": (broken({"extra.bias": torch.zeros(1)}), r"'cnn': not expected: extra\.bias; check"),
    "shape": (
        broken({"conv1.weight": torch.zeros(16, 3, 3, 3)}),
        r"wrong shape: conv1\.weight has shape \(16, 3, 3, 3\), expected \(16, 1, 3, 3\); check",
    ),
    "other architecture": (
        dict(net_of("resnet20").state_dict()),
        r"not expected: stages\.0\.0\.conv1\.weight, .* and \d+ more",
    ),
    "nan": (broken({"linear.weight": torch.full((10, 512), torch.nan)}), r"NaN or infinite; fetch the file again"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_are_refused_by_name(case: str, tmp_path: Path) -> None:
    state, words = MISFITS[case]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=words) as refusal:
        load_weights("cnn", tmp_path / "w.pt", channels=1, size=16, **PLAIN)
    assert len(str(refusal.value)) < 400


def test_missing_batch_counts_are_no_fault(tmp_path: Path) -> None:
    net, path = net_of("cnn"), tmp_path / "w.pt"
    torch.save({k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
    assert same(net, load_weights("cnn", path, channels=1, size=16, **PLAIN))


def test_a_normalization_for_other_channels_is_refused(tmp_path: Path) -> None:
    torch.save(net_of("cnn").state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="There are 3 means for 1 channels"):
        load_weights("cnn", tmp_path / "w.pt", channels=1, size=16, mean=(0.5, 0.5, 0.5), std=1)
    with pytest.raises(InputError, match="There are 3 stds for 1 channels"):
        load_weights("cnn", tmp_path / "w.pt", channels=1, size=16, mean=0, std=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(("mean", "std"), [(None, None), (None, 1), (0, None)])
def test_an_unknown_normalization_is_refused(mean: float | None, std: float | None, tmp_path: Path) -> None:
    torch.save(net_of("cnn").state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"missing.*mean=0 and std=1"):
        load_weights("cnn", tmp_path / "w.pt", channels=1, size=16, mean=mean, std=std)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no classifier architecture called 'smalcnn': did you mean 'smallcnn'"):
        load_weights("smalcnn", tmp_path / "w.pt", **PLAIN)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as refusal:
        load_weights("cnn", path, channels=1, size=16, **PLAIN)
    return str(refusal.value)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    assert "There is no weights file" in refused(tmp_path / "none.pt")
    assert "There is no weights file" in refused(tmp_path)
    for name in ("text.pt", "text.safetensors", "empty.pth", "empty.safetensors"):
        (tmp_path / name).write_bytes(b"<!doctype html>" if name.startswith("text") else b"")
        assert "cannot be read" in refused(tmp_path / name) or "damaged" in refused(tmp_path / name)
    (tmp_path / "w.onnx").write_bytes(b"x")
    assert "ends in '.onnx', expected .safetensors or one of .pt, .pth, .th" in refused(tmp_path / "w.onnx")


def test_a_pickle_that_needs_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    assert "pickled code" in refused(tmp_path / "whole.pt")


@pytest.mark.parametrize("saved", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(saved: object, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "w.pt")
    assert "holds no state dict, expected names with tensors" in refused(tmp_path / "w.pt")
