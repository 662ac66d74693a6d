"""`forefend export` and `forefend latency` on real digits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import done, files, guide, refused

from forefend import data
from forefend.models import export, preprocessors
from forefend.models.classifiers.loading import load as load_classifier
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard, load


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder, with the defense `bare` of the digits."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = preprocessors.build("narrow-unet", channels=1, widths=[4, 8], depths=[1, 1])
    card = DefenseCard("narrow-unet", dict(network.settings), "Linf:0.1", "rtfe", "digits")  # type: ignore[arg-type]
    Defense(network, card).eval().save("bare")
    return tmp_path


def test_export_to_a_folder_states_the_accuracies_of_the_records(here: Path) -> None:
    options = "--data digits --images 30 --suite quick --threat Linf:0.1 --device cpu --allow-weak-classifier"
    done(f"evaluate bare --classifiers {guide()} {options}")
    assert "accuracies from 1 evaluation" in done("export bare --to out --license mit")
    assert files(here / "out") == [
        "README.md",
        "defense.json",
        "models.json",
        "release.json",
        "robustbench.json",
        "weights.safetensors",
    ]
    text = (here / "out" / "README.md").read_text()
    (summary,) = here.glob("bare/evaluations/*/summary.json")
    rows = json.loads(summary.read_text())["results"]
    assert all(f"{100 * row['accuracy']:.1f} [" in text for row in rows)
    assert all(words in text for words in ("license: mit", "n=30", "(unseen)", "PGD-20"))
    assert load("out").identity() == load("bare").identity()
    (here / "out" / "README.md").write_text(text.replace("n=30", "n=3000"))
    assert "README.md is not the file that was released" in refused("latency out --data digits")


ALONE = """
import json, sys, numpy, onnxruntime
session = onnxruntime.InferenceSession("model.onnx")
(logits,) = session.run(None, {"images": numpy.load("x.npy")})
print(json.dumps([logits.argmax(1).tolist(), sorted({"torch", "onnx", "forefend"} & sys.modules.keys())]))
"""


def test_export_with_a_classifier_gives_its_predictions(here: Path, python: Callable[..., str]) -> None:
    """To load onnxscript and to convert takes seconds."""
    pytest.importorskip("onnxscript")
    out = done(f"export bare --classifier {guide()} --to model.onnx --triton served --images 20 --device cpu")
    assert "compared with the original on 20 images: the same predictions" in out
    assert files(here / "served") == ["1", "1/model.onnx", "config.pbtxt"]
    x, _, _ = data.load("digits", "test").batch(torch.arange(40))
    model = Defended(load("bare"), load_classifier(guide()).network)
    assert torch.equal(load_classifier("model.onnx").network(x).argmax(1), model(x).argmax(1))
    np.save("x.npy", x.numpy())
    assert json.loads(python(ALONE)) == [model(x).argmax(1).tolist(), []]


def test_export_to_int8_measures_it_beside_float32_and_says_how(here: Path) -> None:
    """To load onnxscript and to convert takes seconds."""
    pytest.importorskip("onnxscript")
    line = f"export bare --classifier {guide()} --to model.onnx --int8 --images 10 --device cpu --threat Linf:0.02"
    out = done(line)
    assert "compared with the original on 10 images: the same predictions" in out
    folder = here / "model-int8"
    text, summary = (folder / "README.md").read_text(), json.loads((folder / "summary.json").read_text())
    rows = {(row["classifier"], row["attack"]): row for row in summary["results"]}
    names = ["natural-digits-tinyresnet-s0 float32", "natural-digits-tinyresnet-s0 int8"]
    assert sorted({name for name, _ in rows}) == names
    assert all(f"{100 * row['accuracy']:.1f} [" in text for row in rows.values())
    assert hashlib.sha256((here / "model.onnx").read_bytes()).hexdigest() in text
    assert "An int8 network has no gradient." in text
    assert f"[with the gradient of {names[0]} " in text
    x, y, _ = data.sample(data.load("digits", "test"), 10, 0).batch(torch.arange(10))
    right = load_classifier("model.onnx").network(x).argmax(1) == y
    assert rows[names[1], "none"]["accuracy"] == float(right.double().mean())
    before = (folder / "records.jsonl").read_bytes()
    done(line)  # the same file again, whose verdicts are on record
    assert (folder / "records.jsonl").read_bytes() == before


def test_export_of_the_defense_alone_needs_no_classifier(here: Path) -> None:
    assert "outputs that differ by at most" in done("export bare --to bare.pt2 --images 5 --device cpu")
    assert (here / "bare.pt2").stat().st_size > 1000


def test_an_export_that_answers_otherwise_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_pt2", lambda program, path: lambda x: program.module()(x) + 0.01)
    before = files(here)
    assert "nothing is written" in refused("export bare --to sub/bare.pt2 --images 5 --device cpu")
    assert files(here) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("bare", "Nothing to write: give --to"),
        ("bare --to model.pt", "expected a file .onnx or .pt2, or a folder"),
        ("bare --to out --classifier cnn:w.pt", "out is a folder, which holds the defense alone"),
        ("bare --to out --triton served", "out is a folder, which holds the defense alone"),
        ("bare --to out.onnx --int8", "int8 changes answers, which are measured with a classifier"),
        (
            "bare --to out.pt2 --classifier cnn:w.pt --int8",
            "int8 changes answers, which are measured with a classifier",
        ),
        ("nowhere --to out", "nowhere holds no defense.json"),
        ("bare --to .", "holds other files, which are not to be given away"),
        ("bare --to x.onnx --images 0", "images is 0, expected at least 1"),
    ],
)
def test_export_of_bad_options_is_refused_and_writes_nothing(here: Path, options: str, words: str) -> None:
    before = files(here)
    assert words in refused(f"export {options}")
    assert files(here) == before


def test_latency_shows_the_classifier_with_and_without_the_defense(here: Path) -> None:
    line = f"latency bare --classifiers {guide()} --data digits --images 4 --device cpu"
    out = done(line)
    assert "natural-digits-tinyresnet-s0 defended" in out
    alone, together = json.loads(done(f"{line} --json"))["models"]
    assert together["parameters"] > alone["parameters"]
    assert alone["milliseconds"].keys() == {"1", "32"}
    assert json.loads((here / "bare/latency.json").read_text())["models"] == [alone, together]
