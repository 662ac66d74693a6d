"""A defense is exported to ONNX and torch.export, and answers as before, alone and with its classifier."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from forefend import data
from forefend.checks import InputError
from forefend.models import export, preprocessors
from forefend.models.classifiers import BlackBox, Normalized
from forefend.models.classifiers.loading import load
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard
from forefend.models.export import exported
from forefend.models.fingerprint import state_digest

IMAGES = data.load("digits", "test")
X = IMAGES.batch(torch.arange(9))[0]


def classifier() -> nn.Module:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    return Normalized(body, 0.5, 0.5)


def defense() -> Defense:
    torch.manual_seed(0)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    return Defense(network, DefenseCard("narrow-unet", dict(network.settings))).eval()  # type: ignore[arg-type]


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_an_onnx_file_is_loaded_as_a_black_box_with_the_same_predictions(tmp_path: Path) -> None:
    """To load onnxscript and to convert takes seconds."""
    pytest.importorskip("onnxscript")
    given = classifier()
    model, before = Defended(defense(), given), state_digest(given)
    found = exported(model, X, ".onnx", logits=True)
    found.save(tmp_path / "model.onnx")
    found.save_triton(tmp_path / "triton")
    assert state_digest(given) == before
    assert found.difference <= export.TOLERANCE
    assert "the same predictions" in str(found)
    more = IMAGES.batch(torch.arange(9, 40))[0]
    for path in (tmp_path / "model.onnx", tmp_path / "triton" / "1" / "model.onnx"):
        again = load(path).network
        for x in (more, more[:1]):
            assert torch.equal(again(x).argmax(1), model(x).argmax(1))
            torch.testing.assert_close(again(x), model(x), rtol=1e-3, atol=1e-5)
    config = (tmp_path / "triton" / "config.pbtxt").read_text()
    assert 'name: "triton"' in config
    assert re.search(r'name: "images", data_type: TYPE_FP32, dims: \[1, 8, 8\]', config)
    assert re.search(r'name: "logits", data_type: TYPE_FP32, dims: \[10\]', config)
    assert "max_batch_size: 32" in config


def test_a_pt2_file_of_a_defense_alone_gives_the_same_images(tmp_path: Path) -> None:
    found = exported(defense(), X, ".pt2", logits=False)
    found.save(tmp_path / "defense.pt2")
    again = torch.export.load(tmp_path / "defense.pt2").module()
    with torch.no_grad():
        for count in (1, 5):
            torch.testing.assert_close(again(X[:count]), defense()(X[:count]))
    assert (found.output, found.width) == ("processed", 1)


def test_a_pt2_file_with_its_classifier_is_loaded_as_a_classifier(tmp_path: Path) -> None:
    model = Defended(defense(), classifier())
    exported(model, X, ".pt2", logits=True).save(tmp_path / "model.pt2")
    again = load(tmp_path / "model.pt2").network
    torch.testing.assert_close(again(X), model(X))


@pytest.mark.parametrize("logits", [True, False])
def test_an_export_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, logits: bool) -> None:
    monkeypatch.setattr(export, "_pt2", lambda program, path: lambda x: program.module()(x).flip(1) + 1)
    network = Defended(defense(), classifier()) if logits else defense()
    with pytest.raises(InputError, match=r"answers otherwise than the original on 1 images .*: nothing is written"):
        exported(network, X, ".pt2", logits=logits)


def test_what_cannot_be_exported_is_refused() -> None:
    with pytest.raises(InputError, match="The network is random"):
        exported(Noise(), X, ".pt2", logits=False)
    with pytest.raises(InputError, match="cannot be exported for any number of images"):
        exported(preprocessors.build("jpeg", channels=1), X, ".pt2", logits=False)
    box = BlackBox(lambda x: np.zeros((len(x), 10)) - 1, name="box")
    with pytest.raises(InputError, match="box is a black box, of which there is nothing to export"):
        exported(Defended(defense(), box), X, ".pt2", logits=True)
