from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from forefend.checks import InputError
from forefend.data.dataset import from_tensors
from forefend.models.classifiers import Normalized, build
from forefend.models.classifiers.model_card import load_card, read_card, save_classifier

CARD = {"architecture": "cnn", "weights": "w.pt", "mean": [0.5], "std": 0.25, "channels": 1, "size": 8}


def write(folder: Path, card: object) -> Path:
    path = folder / "guide.json"
    path.write_text(card if isinstance(card, str) else json.dumps(card))
    return path


def without(key: str) -> dict[str, object]:
    return {name: value for name, value in CARD.items() if name != key}


def test_load_card_reads_weights_relative_to_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = build("cnn", channels=1, classes=4, size=8).eval()
    (tmp_path / "cards").mkdir()
    torch.save(net.state_dict(), tmp_path / "w.pt")
    path = write(tmp_path / "cards", CARD | {"weights": "../w.pt", "classes": 4})
    monkeypatch.chdir(tmp_path.parent)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load_card(path)(x), net((x - 0.5) / 0.25))
    assert torch.equal(load_card(str(path))(x), net((x - 0.5) / 0.25))
    assert load_card(path).training is False


def test_read_card_without_name_takes_file_name(tmp_path: Path) -> None:
    assert read_card(write(tmp_path, CARD)) == CARD | {"name": "guide"}
    assert read_card(write(tmp_path, CARD | {"format": 1})) == CARD | {"name": "guide"}
    assert read_card(write(tmp_path, CARD | {"name": "the bank's"}))["name"] == "the bank's"


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("{", r"guide\.json is not JSON"),
        ("[1]", r"holds a list, expected an object with architecture, weights, mean, std"),
        (without("architecture"), r"lacks architecture"),
        (without("weights"), r"lacks weights: [^;]*\.$"),
        (without("std"), r'lacks std: .*"mean": 0 and "std": 1 mean none'),
        (without("mean"), r'lacks mean: .*"mean": 0 and "std": 1 mean none'),
        (
            CARD | {"weight": "w.pt"},
            r"no key of a classifier's card \(guide\.json\) called 'weight': did you mean 'weights'",
        ),
        (CARD | {"name": "a\x1b[2J"}, r"gives 'a\\x1b\[2J' as name, expected"),
        (CARD | {"name": "\ud800"}, r"gives '\\ud800' as name, expected"),
        (CARD | {"weights": "w\0.pt"}, r"gives 'w\\x00.pt' as weights, expected"),
        (CARD | {"architecture": 3}, r"gives 3 as architecture, expected a text"),
        (CARD | {"weights": ""}, r"gives '' as weights, expected a text"),
        (CARD | {"mean": None}, r"gives None as mean, expected a number, or a list of one for each channel"),
        (CARD | {"std": []}, r"gives \[\] as std, expected a number, or"),
        (CARD | {"std": ["1"]}, r"gives \['1'\] as std, expected a number, or"),
        (CARD | {"mean": True}, r"gives True as mean, expected a number, or"),
        (CARD | {"classes": "10"}, r"gives '10' as classes, expected a whole number above 0"),
        (CARD | {"format": 2}, r"format 2"),
        (CARD | {"channels": 0}, r"gives 0 as channels, expected a whole number above 0"),
        (CARD | {"size": True}, r"gives True as size, expected a whole number above 0"),
        (CARD | {"architecture": "resnet19"}, r"no classifier architecture called 'resnet19': did you mean"),
        (CARD, r"no weights file .*w\.pt"),
        (CARD | {"std": 0}, r"no weights file"),
    ],
)
def test_load_card_with_wrong_content_raises(card: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        load_card(write(tmp_path, card))


def test_load_card_without_readable_file_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        load_card(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"bytes\.json is not JSON"):
        load_card(tmp_path / "bytes.json")


def test_saved_classifier_that_was_edited_is_refused(tmp_path: Path) -> None:
    images = from_tensors("toy", torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]), classes=(*"abcd",))
    network = Normalized(build("cnn", channels=1, classes=4, size=8), mean=[0.5], std=[0.25]).eval()
    save_classifier(tmp_path, network, "cnn", images)
    path, weights = tmp_path / "classifier.json", tmp_path / "weights.safetensors"
    x, content = torch.rand(2, 1, 8, 8), path.read_text()
    assert torch.equal(load_card(path)(x), network(x))
    path.write_text(content.replace("0.25", "0.75"))
    with pytest.raises(InputError, match=r"classifier.json was edited after it was written \(its std\)"):
        load_card(path)
    path.write_text(content)
    weights.write_bytes(weights.read_bytes()[:-400] + bytes(400))
    with pytest.raises(InputError, match=r"weights\.safetensors is damaged"):
        load_card(path)
