"""`forefend corruptions`: generated and published images, and refused options."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import done, files, guide, refused

from forefend.data import load, sample

LINE = "corruptions --data digits --images 30"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_corruptions_again_reads_records(here: Path) -> None:
    line = f"{LINE} --classifiers {guide()} --corruptions fog contrast --severities 5 1 --out c"
    out = done(line)
    assert {"c/corruptions.json", "c/records.jsonl"} <= set(files(here))
    kept = json.loads((here / "c/corruptions.json").read_text())
    assert "not comparable with published mCE" in kept["images"]
    assert "not comparable with published mCE" in out
    assert [(c["corruption"], c["severity"]) for c in kept["results"]] == [
        ("none", 0), ("fog", 1), ("fog", 5), ("fog", 0), ("contrast", 1), ("contrast", 5), ("contrast", 0), ("mean", 0)
    ]  # fmt: skip
    assert all(c["n"] == 30 for c in kept["results"])
    lines = (here / "c/records.jsonl").read_bytes()
    assert done(line).splitlines()[-8:] == out.splitlines()[-8:]
    assert (here / "c/records.jsonl").read_bytes() == lines


def test_corruptions_of_run_has_both_pipelines(here: Path) -> None:
    done(f"train robustifier --data digits --epochs 1 --images 100 --steps 2 --guides {guide()} --out run")
    done("corruptions run --images 20 --corruptions contrast --severities 1")
    (kept,) = here.glob("run/corruptions/*/corruptions.json")
    cells = json.loads(kept.read_text())["results"]
    assert {(c["defended"], c["seen"]) for c in cells} == {(False, True), (True, True)}


def test_corruptions_from_published_set(here: Path) -> None:
    x, y, _ = sample(load("digits", "test"), 10, 0).batch(torch.arange(10))
    pixels = (255 * torch.nn.functional.interpolate(x, (32, 32))).byte().expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
    np.savez(here / "d.npz", x=pixels.numpy(), y=y.numpy())
    (here / "D-C").mkdir()
    np.save(here / "D-C/fog.npy", np.concatenate([pixels.numpy()] + [np.zeros_like(pixels.numpy())] * 4))
    np.save(here / "D-C/labels.npy", np.tile(y.numpy(), 5))
    line = "corruptions --data d.npz --classifiers resnet20@random --allow-weak-classifier --from D-C"
    np.savez(here / "d.npz", x_test=pixels.numpy(), y_test=y.numpy(), x_train=pixels.numpy(), y_train=y.numpy())
    out = done(f"{line} --severities 1 2 --out p")
    assert "not comparable" not in out
    cells = {
        (c["corruption"], c["severity"]): c for c in json.loads((here / "p/corruptions.json").read_text())["results"]
    }
    assert cells["fog", 1]["accuracy"] == cells["none", 0]["accuracy"]  # the first block is the clean images
    assert not any(c["made"] for c in cells.values())
    np.save(here / "D-C/labels.npy", np.tile((y.numpy() + 1) % 10, 5))
    assert "give its clean test set" in refused(f"{line} --out q")
    assert "did you mean 'fog'" in refused(f"{line} --corruptions frog")
    np.save(here / "D-C/labels.npy", np.tile(y.numpy()[:6], 5))
    np.save(here / "D-C/fog.npy", np.concatenate([pixels.numpy()[:6]] * 5))
    out = done(f"{line} --severities 1 --out r")
    assert "D-C holds 6 images a severity, 6 of the 10" in out


def test_corruptions_with_bad_option_is_refused() -> None:
    assert "photographs of frost" in refused(f"{LINE} --classifiers {guide()} --corruptions frost")
    assert "did you mean 'snow'" in refused(f"{LINE} --classifiers {guide()} --corruptions snaw")
    assert "are gray, and saturate changes colors" in refused(f"{LINE} --classifiers {guide()} --corruptions saturate")
    assert "severity is 7" in refused(f"{LINE} --classifiers {guide()} --severities 7")
    assert "Nothing to evaluate" in refused(LINE)
    assert "no folder nowhere" in refused(f"{LINE} --classifiers {guide()} --from nowhere")
    assert "There is no run" in refused("corruptions run") or "There is no " in refused("corruptions run")


def test_corruptions_checks_device(here: Path) -> None:
    line = f"{LINE} --classifiers {guide()} --corruptions fog --severities 1"
    done(f"{line} --out c --device cpu")
    if not torch.cuda.is_available():
        assert "torch finds no CUDA" in refused(f"{line} --out d --device cuda")
    assert "device" in refused(f"{line} --out d --device tpu")
    assert not Path("d").exists()
