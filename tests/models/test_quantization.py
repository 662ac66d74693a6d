"""An exported classifier in int8: its predictions, its independence of the batch, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forefend import data
from forefend.checks import InputError
from forefend.models.classifiers.loading import load
from forefend.models.export import Exported, exported
from forefend.models.quantization import quantized

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

IMAGES = data.load("digits", "test")
X, Y, _ = IMAGES.batch(torch.arange(100))
CALIBRATION = data.load("digits", "train").batch(torch.arange(100))[0]


@cache
def trained() -> nn.Module:
    """A classifier of the digits."""
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU())
    network = nn.Sequential(*body, nn.Flatten(), nn.Linear(32 * 16, 10))
    x, y, _ = data.load("digits", "train").batch(torch.arange(1000))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


@cache
def original() -> Exported:
    return exported(trained(), X, ".onnx", logits=True)


def test_int8_predicts_what_float32_does_in_less_than_half_the_bytes(tmp_path: Path) -> None:
    int8 = quantized(original(), X, CALIBRATION)
    int8.save(tmp_path / "int8.onnx")
    again = load(tmp_path / "int8.onnx").network  # without mean and std: it says that pixels are in [0, 1]
    with torch.no_grad():
        expected = trained()(X)
    same = again(X).argmax(1) == expected.argmax(1)
    assert int8.agreement == float(same.double().mean()) >= 0.97
    assert int8.difference == pytest.approx(float((again(X) - expected).abs().max() / expected.abs().max()), rel=1e-3)
    assert 1e-4 < int8.difference < 0.1  # it is quantized, and not broken
    assert len(int8.content) < len(original().content) / 2
    share = "" if int8.agreement == 1 else f" for {int8.agreement:.1%}"
    assert f"on 100 images: the same predictions{share}, and outputs" in str(int8)
    assert "tolerance" not in str(int8)
    assert (
        abs(float((again(X).argmax(1) == Y).double().mean()) - float((expected.argmax(1) == Y).double().mean())) < 0.04
    )


def test_logits_of_an_image_do_not_depend_on_its_batch(tmp_path: Path) -> None:
    quantized(original(), X, CALIBRATION).save(tmp_path / "int8.onnx")
    network = load(tmp_path / "int8.onnx").network
    assert torch.equal(torch.cat([network(x[None]) for x in X[:20]]), network(X[:20]))


def test_a_network_that_predicts_otherwise_in_int8_is_refused() -> None:
    """The range of black images is nothing: every activation is cut off."""
    with pytest.raises(InputError, match=r"for \d+% of 100 images, expected at least 90%: export it in float32"):
        quantized(original(), X, torch.zeros_like(CALIBRATION))


def test_what_onnxruntime_cannot_read_is_refused() -> None:
    with pytest.raises(InputError, match="The network cannot be quantized to int8"):
        quantized(replace(original(), content=b"no graph"), X, CALIBRATION)


def test_the_network_and_the_images_are_unchanged() -> None:
    before = [tensor.clone() for tensor in trained().state_dict().values()]
    images: Tensor = X.clone()
    quantized(original(), images, CALIBRATION)
    assert torch.equal(images, X)
    assert all(map(torch.equal, before, trained().state_dict().values()))
