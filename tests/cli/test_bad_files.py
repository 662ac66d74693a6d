"""Damaged files and a full disk: each gives one sentence, exit code 2 and no partial file."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import done, files, guide, refused

from forefend.data import published
from forefend.evaluation.results import load

TRAIN = "--data digits --images 40 --epochs 1 --steps 1 --out run"
RESNET20 = "akamaster-cifar10-resnet20.th"
NORMALISED = "--mean .485 .456 .406 --std .229 .224 .225"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def npz(**arrays: np.ndarray) -> str:
    np.savez("mine.npz", **arrays)
    return "--data mine.npz"


GREY = np.zeros((6, 8, 8), np.uint8)
LABELS = np.arange(6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_test": GREY[:0], "y_test": LABELS[:0]}, "mine.npz: The batch holds no images"),
        ({"x_test": GREY, "y_test": LABELS - 1}, "Labels range over -1 … 4"),
        ({"x_test": GREY, "y_test": LABELS[:5]}, "There are 5 labels for 6 images"),
        ({"x_test": GREY, "y_test": LABELS * 1.0}, "holds labels float64"),
        ({"x_test": GREY - 0.5, "y_test": LABELS}, "they look normalized"),
        ({"x_test": GREY * np.nan, "y_test": LABELS}, "NaN"),
        ({"x_test": GREY.astype(int), "y_test": LABELS}, "mine.npz: Images are int64"),
        ({"x_test": GREY[0], "y_test": LABELS}, "shape (8, 8)"),
        ({"x_train": GREY, "y_train": LABELS}, "holds no arrays x_test and y_test"),
        (
            {"x_test": GREY, "y_test": LABELS, "classes": np.array(list("abcdef"))},
            "returns shape (2, 10), expected (2, 6)",
        ),
        ({"x_test": GREY, "y_test": np.arange(6) + 9}, "range over 9 … 14 and none is 0"),
        ({"x_test": GREY.repeat(3, 0).reshape(6, 3, 8, 8), "y_test": LABELS}, "Images of shape (3, 8, 8) do not fit"),
        ({"x_test": np.array([None]), "y_test": LABELS}, "not a readable .npz"),
    ],
)
def test_evaluate_with_wrong_archive_is_refused(arrays: dict[str, np.ndarray], words: str, here: Path) -> None:
    option = npz(**arrays)
    assert words in refused(f"evaluate {guide()} {option} --threat Linf:0.1 --out e --allow-weak-classifier")
    assert "records.jsonl" not in "".join(files(here))


def test_evaluate_without_readable_archive_is_refused() -> None:
    assert "There is no file none.npz: check the path, and give it with --data" in refused(
        f"evaluate {guide()} --data none.npz"
    )
    Path("cut.npz").write_bytes(b"PK\x03\x04 and no more")
    assert "cut.npz is not a readable .npz" in refused(f"evaluate {guide()} --data cut.npz")
    assert "There is no file or folder of images no/where" in refused(f"evaluate {guide()} --data no/where")


def idx(shape: tuple[int, ...]) -> bytes:
    lengths = b"".join(n.to_bytes(4, "big") for n in shape)
    return bytes((0, 0, 8, len(shape))) + lengths + bytes(int(np.prod(shape)))


def test_evaluate_with_changed_mnist_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = here / "sets" / "mnist"
    folder.mkdir(parents=True)
    line = f"evaluate {guide()} --data mnist --data-dir sets --out e"
    assert "are neither in" in refused(line)
    assert "--download" in refused(line)
    images, labels = gzip.compress(idx((6, 28, 28))), gzip.compress(idx((6,)))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(images[:-20])
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    assert "sha256" in refused(line)
    monkeypatch.setattr(published, "verify", lambda *_: None)
    assert "t10k-images-idx3-ubyte.gz is truncated or damaged" in refused(line)
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx((7, 28, 28))))
    assert "holds 7 images but t10k-labels-idx1-ubyte.gz holds 6 labels" in refused(line)
    assert not (here / "e").exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Evil()), "which was not run"),
        (pickle.dumps({"data": 1}), "expected a dictionary with 8-bit 'data' and a list 'labels'"),
        (b"\x80\x04 cut", "cannot be unpickled"),
    ],
)
def test_evaluate_with_wrong_pickle_is_refused(
    content: bytes, words: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "sets" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    (folder / "test_batch").write_bytes(content)
    line = f"evaluate {guide()} --data cifar-10 --data-dir sets"
    assert "test_batch" in refused(line)
    monkeypatch.setattr(published, "verify", lambda *_: None)
    assert words in refused(line)
    assert not (here / "hacked").exists()


LEVELS = "\n".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghij"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: &a [1, 1, 1, 1]\n" + LEVELS, "holds a YAML reference (a), expected plain options"),
        ("seed: " + "[" * 5000, "nested more than 20 levels"),
        ("seed: [1", "parsing"),
        ("# " + "x" * 100_000, "bytes, expected at most 100,000"),
        ("\0", "is not YAML"),
    ],
)
def test_config_that_expands_without_end_is_refused(content: str, words: str, here: Path) -> None:
    Path("c.yaml").write_text(content)
    assert words in refused("evaluate --data digits --config c.yaml")


def test_config_that_is_a_pipe_is_refused(here: Path) -> None:
    os.mkfifo("c.yaml")
    assert "c.yaml is a folder, pipe or device, expected a file" in refused("evaluate --data digits --config c.yaml")


def full_disk(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Make every write fail after `after` files."""
    real, left = os.fsync, [after]

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_train_with_full_disk_resumes(after: int, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"train rtfe --guides {guide()} {TRAIN}"
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        said = refused(line)
    assert said.startswith("Cannot write")
    assert "No space left on device" in said
    left = {name: (here / name).read_bytes() for name in files(here) if (here / name).is_file()}
    assert len([name for name in left if not name.endswith(".jsonl")]) == after  # no partial files
    done(line)
    assert json.loads((here / "run" / "defense.json").read_text())["recipe"] == "rtfe"


def test_evaluate_with_full_disk_keeps_old_summary(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"evaluate {guide()} --images 20 --threat Linf:0.1 --out e"
    done(line)
    before = (here / "e" / "summary.json").read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch, 0)
        assert "No space left" in refused(f"{line} --threat Linf:0.1 Linf:0.2")
    assert (here / "e" / "summary.json").read_bytes() == before
    assert files(here / "e") == ["evaluation.json", "models.json", "records.jsonl", "summary.json"]


def test_train_with_wrong_layer_writes_nothing(here: Path) -> None:
    line = f"train jatp --guides {guide()} {TRAIN}"
    assert "no tap in this classifier called 'nowhere'" in refused(f"{line} --tap nowhere")
    assert files(here) == []
    done(f"{line} --tap stages.1")
    before = files(here)
    assert "belongs to another configuration (tap was 'stages.1', now 'stages.2')" in refused(f"{line} --tap stages.2")
    assert files(here) == before


def test_evaluate_with_wrong_run_is_refused(here: Path) -> None:
    assert "There is no nowhere/config.json" in refused("evaluate nowhere")
    assert "No images were named" in refused("evaluate")
    assert "Nothing to evaluate" in refused("evaluate --data digits")
    done(f"train rtfe --guides {guide()} {TRAIN}")
    assert "run holds no classifier" in refused(f"train rtfe --guides run {TRAIN}2")
    whole = (here / "run" / "weights.safetensors").read_bytes()
    line = "evaluate run --threat Linf:0.1 --images 20 --out e"
    for content, words in (
        (whole[:1000], "run/weights.safetensors is damaged"),
        (None, "copy the whole"),
    ):
        (here / "run" / "weights.safetensors").unlink()
        if content:
            (here / "run" / "weights.safetensors").write_bytes(content)
            assert words in refused(line)
    assert "no weights.safetensors" in refused(line)
    (here / "run" / "defense.json").unlink()
    assert "holds no defense.json" in refused(line)
    assert not (here / "e").exists()


def published_classifier(real_data: Path, architecture: str = "resnet20") -> str:
    weights = real_data / "classifiers" / RESNET20
    return f"evaluate --classifier {architecture}:{weights} --data cifar-10 --data-dir {real_data} --images 20 --out e"


def test_evaluate_published_classifier_alone(real_data: Path, here: Path) -> None:
    done(f"{published_classifier(real_data)} {NORMALISED} --threat Linf:8/255 --suite quick")
    worst = [c for c in load(here / "e") if c.attack == "worst"]
    assert [(c.classifier, c.seen, c.defended, c.accuracy) for c in worst] == [
        ("akamaster-cifar10-resnet20", False, False, 0.0)
    ]


def test_evaluate_card_takes_name_from_card(real_data: Path, here: Path) -> None:
    card = {"architecture": "resnet20", "weights": str(real_data / "classifiers" / RESNET20), "name": "theirs"}
    (here / "card.json").write_text(json.dumps(card | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}))
    line = f"evaluate --classifiers card.json --data cifar-10 --data-dir {real_data} --images 20 --suite curve"
    done(f"{line} --threat Linf:1/255 --out e")
    assert {c.classifier for c in load(here / "e")} == {"theirs"}
    (here / "card.json").write_text(json.dumps(card))
    assert "lacks mean, std" in refused(f"{line} --out e2")


def test_evaluate_with_wrong_normalization_is_refused(real_data: Path, here: Path) -> None:
    line = published_classifier(real_data)
    assert "missing: give those of its training" in refused(line)
    assert "numbers in [0, 1]" in refused(f"{line} --mean 10 --std 0.01")
    assert "There are 2 means for 3 channels" in refused(f"{line} --mean 0.1 0.2 --std 1")
    assert "numbers above 0" in refused(f"{line} --mean 0 --std 0")
    said = refused(f"{line} --mean 1 --std 0.05")
    assert "near chance (10.0%)" in said
    assert "normalization" in said
    assert "--allow-weak-classifier" in said
    assert files(here) == []
    done(f"{line} --mean 1 --std 0.05 --allow-weak-classifier --suite curve --threat Linf:1/255")


def test_evaluate_with_wrong_weights_is_refused(real_data: Path, here: Path) -> None:
    said = refused(f"{published_classifier(real_data, 'resnet32')} {NORMALISED}")
    assert "does not hold the weights of 'resnet32': missing:" in said
    whole = (real_data / "classifiers" / RESNET20).read_bytes()
    (here / "cut.th").write_bytes(whole[: len(whole) // 2])
    (here / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    line = f"evaluate --data cifar-10 --data-dir {real_data} {NORMALISED} --classifier"
    assert "cut.th is damaged" in refused(f"{line} resnet20:cut.th")
    assert "no weights file none.th" in refused(f"{line} resnet20:none.th")
    assert "cannot be read without running its" in refused(f"{line} resnet20:evil.pth")
    assert "did you mean 'resnet20'?" in refused(f"{line} resnet200:cut.th")
    assert not (here / "hacked").exists()


def test_rectangles_for_a_network_of_squares_name_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--size` with the number that was meant makes the same command work."""
    pillow = pytest.importorskip("PIL.Image", reason="the extra data is not installed")
    monkeypatch.chdir(tmp_path)
    for number in range(24):
        place = Path("pictures", "train" if number < 16 else "test", "dark" if number % 2 else "bright")
        place.mkdir(parents=True, exist_ok=True)
        value = 40 if number % 2 else 200
        pillow.fromarray(np.full((10, 14, 3), value + number // 2, np.uint8)).save(place / f"{number}.png")
    line = "train natural --classifier mlp --data pictures --epochs 1 --batch-size 8 --out run"
    assert "read pictures with --size 10, which crops them to squares" in refused(line)
    assert not Path("run").exists()
    done(f"{line} --size 10")
