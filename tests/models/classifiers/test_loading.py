"""Classifiers in files, from functions of the user, and given in Python; texts that name none."""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.onnx_files import write_linear
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.evaluation.model_checks import has_gradient
from forefend.models.classifiers import Normalized, load
from forefend.models.classifiers.black_box import BlackBox
from forefend.models.classifiers.resized import Resized
from forefend.models.freezing import frozen

SHAPE: dict[str, Any] = {"channels": 1, "size": 8, "classes": 3}
PLAIN: dict[str, Any] = {"mean": 0.0, "std": 1.0}


class Net(nn.Module):
    """A small network whose gradient is cut where `cut` is true."""

    def __init__(self, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.linear = nn.Linear(256, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x.detach() if self.cut else x).relu()
        logits: Tensor = self.linear(features.flatten(1))
        return logits


def export(network: nn.Module, path: Path, *, batch: int | None = None) -> Path:
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    x = torch.rand(batch or 2, 1, 8, 8, dtype=next(network.parameters()).dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own formats
        torch.export.save(torch.export.export(network.eval(), (x,), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_exported_program_answers_as_its_network(batch: int | None, tmp_path: Path) -> None:
    network, x = Net(), torch.rand(6, 1, 8, 8, requires_grad=True)
    found = load(export(network, tmp_path / "net.pt2", batch=batch), **SHAPE, mean=[0.5], std=[0.25])
    assert found.name == "net"
    logits, expected = found.network(x), network((x - 0.5) / 0.25)
    assert torch.allclose(logits, expected, atol=1e-5)
    gradients = [torch.autograd.grad(outputs.square().sum(), x)[0] for outputs in (logits, expected)]
    assert torch.allclose(*gradients, atol=1e-5)
    assert torch.equal(frozen(found.network)(x), logits)


def test_exported_program_asks_for_its_normalization(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"normalization is missing: give those of its training, or mean=0 and std=1"):
        load(export(Net(), tmp_path / "net.pt2"), **SHAPE)


def test_exported_program_that_detaches_has_no_gradient(tmp_path: Path) -> None:
    found = load(export(Net(cut=True), tmp_path / "net.pt2"), **SHAPE, **PLAIN)
    assert not has_gradient(found.network, torch.rand(2, 1, 8, 8))


def test_exported_program_for_other_images_is_refused(tmp_path: Path) -> None:
    path = export(Net(), tmp_path / "net.pt2")
    with pytest.raises(
        InputError, match=r"takes images of 1 × 8 × 8, and these are 3 × 28 × 28: read them with size=8"
    ):
        load(path, channels=3, size=28, **PLAIN)
    with pytest.raises(InputError, match=r"takes float64 images, expected float32: export the network after \.float"):
        load(export(Net().double(), path), **SHAPE, **PLAIN)
    path.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"net\.pt2 is no program of torch\.export\.save .*export it again"):
        load(path, **SHAPE, **PLAIN)
    with pytest.raises(InputError, match="There is no file"):
        load(tmp_path / "none.pt2", **SHAPE, **PLAIN)


def test_exported_program_runs_no_pickled_code(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harmed",))

    whole, changed = export(Net(), tmp_path / "net.pt2"), tmp_path / "changed.pt2"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            inputs = "sample_inputs" in name and name.endswith(".pt")
            target.writestr(name, pickle.dumps(Harm()) if inputs else source.read(name))
    with pytest.raises(InputError, match=r"changed\.pt2 is no program"):
        load(changed, **SHAPE, **PLAIN)
    assert not (tmp_path / "harmed").exists()


FACTORY = """
import torch
from beside import CLASSES

def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, CLASSES))

def score():
    return lambda x: x.mean((2, 3)) * [1, 2, 3]

def complete():
    import forefend
    return forefend.classifiers.Normalized(make(), 0.5, 0.5)

def fails():
    return {}["checkpoint"]

def nothing():
    return None

class Late(torch.nn.Module):
    def forward(self, x):
        import late_of_tests
        return x.flatten(1)[:, :late_of_tests.CLASSES]

def late():
    import late_of_tests
    return Late()

def late_in_forward():
    return Late()

def ends():
    raise SystemExit(3)
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_of_tests.py").write_text(FACTORY)
    (tmp_path / "beside.py").write_text("CLASSES = 3\n")
    (tmp_path / "late_of_tests.py").write_text("CLASSES = 3\n")
    (tmp_path / "unfinished_of_tests.py").write_text("def make(:\n")
    (tmp_path / "fails_of_tests.py").write_text("import torch\ntorch.load('absent.pth')\n")
    (tmp_path / "needs_of_tests.py").write_text("import absent_of_tests\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    return str(tmp_path / "mine_of_tests.py")


def test_factory_by_file_and_by_module_gives_the_same_network(factory: str) -> None:
    x = torch.rand(2, 1, 8, 8)
    found = [load(spec, **SHAPE, **PLAIN) for spec in (f"{factory}:make", "mine_of_tests:make")]
    assert [one.name for one in found] == ["make", "make"]
    assert torch.equal(found[0].network(x), found[1].network(x))  # random weights are drawn from a seed
    assert found[0].config()["fingerprint"] == found[1].config()["fingerprint"]


def test_factory_reads_weights_of_a_file(factory: str, tmp_path: Path) -> None:
    state = {"module.1.weight": torch.ones(3, 64), "module.1.bias": torch.zeros(3)}
    torch.save({"net": state, "epoch": 3}, tmp_path / "w.pth")
    found = load(f"{factory}:make:{tmp_path / 'w.pth'}", **SHAPE, **PLAIN)
    assert found.name == "w"
    assert found.network(torch.ones(1, 1, 8, 8)).tolist() == [[64.0] * 3]


@pytest.mark.parametrize("name", ["late", "late_in_forward"])
def test_factory_may_import_a_module_beside_it_when_called(
    name: str, factory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "late_of_tests", raising=False)
    monkeypatch.chdir(tmp_path.parent)
    assert load(f"{factory}:{name}", **SHAPE, **PLAIN).network(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_factory_of_a_function_is_a_black_box(factory: str) -> None:
    found = load(f"{factory}:score", **SHAPE)
    assert isinstance(found.network, BlackBox)
    assert found.network(torch.ones(1, 1, 8, 8)).tolist() == [[1, 2, 3]]


def test_factory_with_normalization_is_not_asked_for_one(factory: str) -> None:
    assert isinstance(load(f"{factory}:complete", **SHAPE).network, Normalized)
    with pytest.raises(InputError, match="normalization is missing"):
        load(f"{factory}:make", **SHAPE)


WRONG = {
    "mine_of_tests:mak": "no function in mine_of_tests called 'mak': did you mean 'make'?",
    "mine_of_tests:fails": "failed (KeyError: 'checkpoint'): it is called without arguments",
    "mine_of_tests:nothing": "returned a NoneType, expected a torch.nn.Module or a function",
    "mine_of_tests:ends": "failed (SystemExit: 3): it is called without arguments",
    "unfinished_of_tests:make": "unfinished_of_tests cannot be imported (SyntaxError: invalid syntax",
    "unfinished_of_tests.py:make": "unfinished_of_tests.py cannot be imported (SyntaxError: invalid syntax",
    "fails_of_tests.py:make": "cannot be imported (FileNotFoundError: [Errno 2] No such file or directory",
    "needs_of_tests.py:make": "needs_of_tests.py needs absent_of_tests, which is not installed: install it",
    "mine_of_test.models:make": "There is no module mine_of_test.models: call forefend from the folder that holds it",
    "absent.py:make": "There is no file absent.py",
    "models/net": "There is no file or folder models/net: check the path",
    "net.pkl": "There is no file or folder net.pkl: check the path",
    "cnnn": "no run, JSON card, source or architecture called 'cnnn': did you mean 'cnn'?",
    "cnn": "is an architecture without weights: give cnn:WEIGHTS, or train it first",
    "https://example.org/net.pth": "download it, and give ARCHITECTURE:FILE",
    "https://example.org/predict": "is not on this machine",
    "tim:resnet18@random": "did you mean 'timm'?",
}


@pytest.mark.parametrize("spec", WRONG)
def test_text_that_names_nothing_is_refused_in_a_sentence(spec: str, factory: str) -> None:
    with pytest.raises(InputError) as refusal:
        load(spec, **SHAPE, **PLAIN)
    assert WRONG[spec] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "net.pth")
    with pytest.raises(InputError, match="cannot be read without running its pickled code"):
        load(f"cnn:{tmp_path / 'net.pth'}", **SHAPE, **PLAIN)
    with pytest.raises(InputError, match="is a file of weights without an architecture"):
        load(tmp_path / "net.pth", **SHAPE, **PLAIN)


def test_network_given_in_python_is_used_as_it_is() -> None:
    network = Net()
    assert load(network).network is network
    assert network.training
    normalized = load(network, mean=0.5, std=0.5).network
    assert isinstance(normalized, Normalized)
    assert normalized.network is network


def test_function_given_in_python_is_a_black_box() -> None:
    def score(x: Any) -> Any:
        return (x.mean((1, 2, 3)) > 0.5).astype("int64")

    found = load(score, outputs="labels", classes=2)
    assert found.name == "score"
    assert found.network(torch.ones(1, 1, 4, 4)).tolist() == [[-1, 1]]
    with pytest.raises(InputError, match="A int was given as a classifier"):
        load(3)  # type: ignore[arg-type]


def test_onnx_file_is_a_black_box_with_its_normalization(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    weights = torch.rand(4, 3).numpy()
    path = write_linear(tmp_path / "net.onnx", weights, ("batch", 1, 2, 2))
    with pytest.raises(InputError, match="normalization is missing"):
        load(path, channels=1, size=2)
    found = load(path, channels=1, size=2, mean=0.5, std=0.5)
    plain = load(path, channels=1, size=2, **PLAIN)
    other = load(write_linear(tmp_path / "other.onnx", weights + 1, ("batch", 1, 2, 2)), channels=1, size=2, **PLAIN)
    assert len({one.config()["fingerprint"] for one in (found, plain, other)}) == 3
    x = torch.rand(3, 1, 2, 2)
    assert torch.allclose(found.network(x), plain.network((x - 0.5) / 0.5))


def test_resized_keeps_the_gradient_and_pads_as_torchvision() -> None:
    network = Resized(nn.Flatten(), None, (6, 6)).eval()
    padded = network(torch.ones(1, 1, 4, 5)).view(6, 6)
    assert padded.sum() == 20
    assert padded[1:5, :5].sum() == 20  # one row above and below, one column on the right
    x = torch.rand(1, 1, 9, 9, requires_grad=True)
    Resized(nn.Flatten(), 5, (4, 4), "bicubic")(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    with pytest.raises(InputError, match="The interpolation 'lanczos' is not supported"):
        Resized(nn.Flatten(), 5, None, "lanczos")
