from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
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


def test_weights_beside_their_average_are_read_with_a_warning(tmp_path: Path) -> None:
    net, path = net_of("cnn"), tmp_path / "w.pth.tar"
    average = {key: torch.zeros_like(value) for key, value in net.state_dict().items()}
    torch.save({"state_dict_ema": average, "state_dict": net.state_dict(), "model_ema": None}, path)
    with pytest.warns(UserWarning, match="holds state_dict and state_dict_ema: state_dict is read"):
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
    "not expected": (broken({"conv9.bias": torch.zeros(1)}), r"'cnn': not expected: conv9\.bias; check"),
    "shape": (
        broken({"conv1.weight": torch.zeros(16, 1, 5, 5)}),
        r"wrong shape: conv1\.weight has shape \(16, 1, 5, 5\), expected \(16, 1, 3, 3\); check",
    ),
    "channels": (
        broken({"conv1.weight": torch.zeros(16, 3, 3, 3)}),
        r"images with 3 channels, but the images have 1: .*channels=1",
    ),
    "integers": (broken({"linear.weight": torch.ones(10, 512).long()}), r"wrong type: linear\.weight has torch\.int64"),
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
    for content, words in (
        (b"\n <!DOCTYPE html><html>quota exceeded</html>", "is a web page, expected"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a pointer of Git LFS, expected"),
        (b"", "is empty, expected the format of safetensors or torch.save: fetch the file again."),
        (b"\x08\x07\x12\x07pytorch", "starts with b'\\x08\\x07"),
        (b"PK\x03\x04" + bytes(90), "is damaged"),
        (b"\x80\x02" + b"((((((((" * 9, "is damaged or no state dict (E"),
        (b"\xff" * 8 + b"{" + bytes(90), "is damaged"),
    ):
        for suffix in (".pt", ".safetensors", ".onnx"):
            path = tmp_path / f"w{suffix}"
            path.write_bytes(content)
            assert words in refused(path)
    os.mkfifo(tmp_path / "pipe.pt")
    assert "There is no weights file" in refused(tmp_path / "pipe.pt")


def test_a_pickle_that_needs_code_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    assert "pickled code" in refused(tmp_path / "whole.pt")


@pytest.mark.parametrize("saved", [{}, {"epoch": 3}, [1, 2], {"state_dict": {"a": 1}}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(saved: object, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "w.pt")
    assert "holds no state dict, expected names with tensors" in refused(tmp_path / "w.pt")


def resnet_state() -> dict[str, Tensor]:
    """Return the weights of a resnet20 under the names of its authors."""
    state = dict(net_of("resnet20").state_dict())
    for stage in range(3):
        state = {key.replace(f"stages.{stage}.", f"layer{stage + 1}."): value for key, value in state.items()}
    return state


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


WRAPPED = {
    "attacker": lambda state: {
        "model": under("module.model.", state)
        | under("module.attacker.model.", {key: value * 0 for key, value in state.items()})
        | {"module.normalizer.new_mean": torch.zeros(1, 1, 1), "module.attacker.normalize.new_std": torch.ones(1, 1, 1)}
    },
    "mu and sigma": lambda state: state | {"mu": torch.zeros(1, 1, 1, 1), "sigma": torch.ones(1, 1, 1, 1)},
    "sequential": lambda state: under("1.", state) | {"0.mean": torch.zeros(1), "0.std": torch.ones(1)},
    "average": lambda state: under("module.", state) | {"n_averaged": torch.tensor(5)},
    "list": lambda state: {"state_dict": [state]},
    "with optimizer": lambda state: [state, {"state": {}, "param_groups": []}],
    "compiled": lambda state: {"model": under("module._orig_mod.", state)},
    "parallel part": lambda state: {key.replace("layer1.", "layer1.module."): state[key] for key in state},
    "profiler": lambda state: state | {"total_ops": torch.zeros(1), "layer1.total_params": torch.zeros(1)},
    "ema": lambda state: {"state_dict_ema": state, "optimizer": {"state": {}}},
    "numpy": lambda state: {"state_dict": state, "best": np.float64(0.5), "epoch": np.int64(3), "log": np.ones(3)},
    "options": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, seeds=[1, 2])},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True])
def test_load_weights_of_training_repositories(wrapper: str, legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pt.tar"
    torch.save(WRAPPED[wrapper](resnet_state()), path, _use_new_zipfile_serialization=not legacy)
    assert same(net_of("resnet20"), load_weights("resnet20", path, channels=1, **PLAIN))


def test_load_weights_of_a_cascade_raises(tmp_path: Path) -> None:
    torch.save({"state_dict": [resnet_state(), resnet_state()]}, tmp_path / "w.pt")
    assert "holds no state dict" in refused(tmp_path / "w.pt")


def test_load_weights_under_prefix_refuses_further_layers(tmp_path: Path) -> None:
    state = under("module.", resnet_state() | {"layer4.0.conv1.weight": torch.zeros(1)})
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"not expected: stages\.3\.0\.conv1\.weight; check"):
        load_weights("resnet20", tmp_path / "w.pt", channels=1, **PLAIN)


def test_load_weights_with_a_further_head_tells_of_it(tmp_path: Path) -> None:
    torch.save(resnet_state() | {"criterion.centers": torch.zeros(2, 2)}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match=r"hold more, which the network does not use: criterion\.centers\."):
        loaded = load_weights("resnet20", tmp_path / "w.pt", channels=1, **PLAIN)
    assert same(net_of("resnet20"), loaded)


def test_load_weights_that_hold_themselves_raises(tmp_path: Path) -> None:
    saved: dict[str, object] = {"epoch": 3}
    saved["model"] = saved
    torch.save(saved, tmp_path / "w.pt")
    assert "holds no state dict" in refused(tmp_path / "w.pt")


ODD = {
    "float8": torch.zeros(10, 512).to(torch.float8_e4m3fn),
    "sparse_coo": torch.eye(512)[:10].to_sparse(),
    "meta": torch.zeros(10, 512, device="meta"),
    "complex64": torch.zeros(10, 512, dtype=torch.complex64),
}


@pytest.mark.parametrize("kind", ODD)
def test_load_weights_of_odd_tensors_raises(kind: str, tmp_path: Path) -> None:
    torch.save(broken({"linear.weight": ODD[kind]}), tmp_path / "w.pt")
    assert (
        f"linear.weight in w.pt is not of plain numbers ({'float32, ' if kind in ('meta', 'sparse_coo') else ''}"
        in (refused(tmp_path / "w.pt"))
    )
    assert kind in refused(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("mean", "std"), [("mean", "std"), ("mu", "sigma"), ("normalizer.new_mean", "normalizer.new_std")]
)
def test_mean_and_std_beside_the_weights_are_compared(mean: str, std: str, tmp_path: Path) -> None:
    net, path = net_of("cnn"), tmp_path / "w.pt"
    beside = {mean: torch.full((1, 1, 1, 1), 0.2860), std: torch.full((1, 1, 1, 1), 0.3530)}
    torch.save({f"model.{key}": value for key, value in net.state_dict().items()} | beside, path)
    load_weights("cnn", path, channels=1, size=16, mean=[0.286], std=0.353)
    with pytest.raises(InputError, match=r"w.pt stores the mean 0.286 beside its weights, and 0.5 was given"):
        load_weights("cnn", path, channels=1, size=16, mean=0.5, std=0.353)
    with pytest.raises(InputError, match=r"stores the std 0.353 beside its weights, and 1 was given"):
        load_weights("cnn", path, channels=1, size=16, mean=0.286, std=1)
    beside[mean] *= 255  # other units, which are not compared
    torch.save(net.state_dict() | beside, path)
    load_weights("cnn", path, channels=1, size=16, **PLAIN)
