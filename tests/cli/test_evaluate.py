"""Training and evaluation by command: every recipe, its files, and resumed runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from helpers.command_line import done, files, forefend, guide, held_by_another, refused

import forefend as ff
from forefend.evaluation.results import load
from forefend.recipes import RECIPES
from forefend.runtime.run_folder import Run

CELL = {"classifier", "seen", "defended", "attack", "norm", "radius"}
CELL |= {"n", "accuracy", "low", "high", "cumulative", "seed"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def training(name: str) -> str:
    """The shortest complete training of a recipe."""
    roles, known = RECIPES[name].roles, {f.name for f in fields(RECIPES[name])}
    line = f"train {name} --data digits --epochs 1 --images 100"
    line += " --steps 2" if "steps" in known else ""
    line += " --bisections 2" if "bisections" in known else ""
    line += f" --guides {guide()}" if "guides" in roles else ""
    return line + (f" --source {guide()}" if "source" in roles else "")


@pytest.mark.parametrize("name", RECIPES)
def test_train_then_evaluate_every_recipe(name: str, here: Path) -> None:
    assert "next:\n  forefend evaluate run " in done(f"{training(name)} --out run")
    left = files(here / "run")
    assert {"config.json", "train.jsonl", "checkpoint.safetensors", "weights.safetensors"} <= set(left)
    assert ("defense.json" in left) != ("classifier.json" in left)
    assert Run(here / "run").config["recipe"] == name
    weak = "--allow-weak-classifier" if "classifier.json" in left else ""
    out = done(f"evaluate run --images 20 --threat Linf:0.1 --suite quick --out e {weak}")
    cells = json.loads((here / "e" / "summary.json").read_text())["results"]
    assert cells
    assert all(set(entry) == CELL and entry["n"] == 20 for entry in cells)
    assert any(entry["defended"] for entry in cells) == ("defense.json" in left)
    assert {entry["attack"] for entry in cells} == {"none", "FGSM", "PGD-20", "PGD-20 margin", "worst"}
    kept = load(here / "e")
    assert all(out.count(warning) == 1 for warning in kept.warnings)
    kept.warnings.clear()  # printed before the table
    assert str(kept) in out


def test_evaluate_defense_without_run_config(here: Path) -> None:
    done(f"{training('rtfe')} --out run")
    (here / "run" / "config.json").unlink()
    line = "evaluate run --images 20 --suite curve"
    assert "No images were named" in refused(line)
    assert "run has no classifier to defend" in refused(f"{line} --data digits")
    done(f"{line} --data digits --classifiers {guide()} --out e")
    cells = load(here / "e")
    assert {(cell.seen, cell.defended) for cell in cells} == {(True, False), (True, True)}
    assert {cell.radius for cell in cells if cell.attack != "none"} == {8 / 255}


def table(printed: str) -> str:
    """The table at the end of an evaluation, without the progress before it."""
    return printed[printed.index("classifier  ") :]


def test_evaluate_names_folder_after_options(here: Path) -> None:
    done(f"{training('rtfe')} --out run")
    line = "evaluate run --images 20 --seed 3 --suite curve --threat Linf:2/255 Linf:0.1"
    first = done(line)
    kept = here / "run" / "evaluations" / f"digits-{guide().name}-curve-Linf2_255-Linf0.1-20-s3"
    before = (kept / "records.jsonl").read_bytes()
    assert table(done(line)) == table(first)
    assert (kept / "records.jsonl").read_bytes() == before
    assert {c.radius for c in load(kept)} == {0, 2 / 255, 0.1}
    assert f"and its evaluations are run/evaluations/{kept.name}: give one of them." in refused("report run")


def test_evaluate_marks_unseen_classifier(here: Path) -> None:
    done(f"{training('rtfe')} --out run")
    done("train natural --data digits --classifier cnn --epochs 2 --images 600 --out unseen")
    done(f"evaluate run --images 20 --threat Linf:0.1 --classifiers unseen {guide()} --out e")
    rows = {(c.classifier, c.seen, c.defended) for c in load(here / "e")}
    assert rows == {
        (name, seen, defended) for name, seen in ((guide().name, True), ("unseen", False)) for defended in (False, True)
    }


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train_again_changes_nothing(here: Path) -> None:
    line = f"{training('rtfe')} --out run"
    done(line)
    before = contents(here / "run")
    again = done(line)
    assert "epoch 1" not in again
    assert contents(here / "run") == before
    sentence = refused(f"{line} --seed 1")
    assert sentence.startswith("run belongs to another configuration (seed was 0, now 1)")
    assert contents(here / "run") == before


def test_train_after_sigterm_resumes(here: Path) -> None:
    line = "train natural --data digits --classifier tinyresnet --images 200 --epochs 60 --batch-size 50 --out run"
    process = subprocess.Popen(
        [sys.executable, "-m", "forefend", *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log, patience = here / "run" / "train.jsonl", time.monotonic() + 60
    while not log.exists() and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.search(r"stopped after step \d+ of 240; the same command resumes from there\.\n$", err)
    assert "Traceback" not in err
    assert "classifier.json" not in files(here / "run")
    epochs = len(log.read_text().splitlines())
    out = done(line)
    assert f"epoch {epochs + 1}/60" in out
    assert "epoch 1/60" not in out
    assert "classifier.json" in files(here / "run")


def test_evaluate_after_sigterm_exits_with_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("not terminated")

    monkeypatch.setattr("forefend.cli.evaluate._run", terminated)
    before = signal.getsignal(signal.SIGTERM)
    answer = forefend("evaluate run")
    assert (answer.code, answer.err) == (130, "\nstopped; the same command resumes from there.\n")
    assert signal.getsignal(signal.SIGTERM) == before


def test_evaluate_pgd_takes_steps_step_size_and_restarts(here: Path) -> None:
    line = f"evaluate {guide()} --images 20 --threat Linf:0.05 Linf:0.1 --processes 1 --suite pgd"
    out = done(f"{line} --steps 3 --step-size 2/255 --restarts 2 --attacks --cumulative --out e")
    assert "PGD-3" in out.splitlines()[-2]
    trials = json.loads((here / "e/evaluation.json").read_text())["trials"]
    assert trials[0].startswith("PGD-3(Linf:0.05, step=2/255, loss=ce, start=random_start) x2")
    assert "PGD-3" in done("report e --attacks --cumulative")
    assert "Linf 0.1" in done("report e e --seeds")
    for words, said in (
        ("--steps 0", "steps"),
        ("--step-size fast", "step-size is 'fast'"),
        ("--restarts 0", "restarts is 0"),
        ("--suite quick --steps 3", "own steps: choose the suite curve"),
    ):
        assert said in refused(f"{line} {words} --out f")


def test_train_takes_augmentation(here: Path) -> None:
    line = "train natural --data digits --classifier mlp --images 40 --epochs 1"
    for name in ("auto", "crop-flip", "none"):
        done(f"{line} --augmentation {name} --out {name}")
    weights = [(here / name / "weights.safetensors").read_bytes() for name in ("auto", "crop-flip", "none")]
    assert weights[0] == weights[2] != weights[1]
    assert "called 'flip'" in refused(f"{line} --augmentation flip --out other")


def test_evaluate_of_a_held_folder_is_refused_before_its_cost(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forefend.evaluation.parallel.cost_of", lambda *_, **__: pytest.fail("the cost was measured"))
    with held_by_another(here / "e"):
        line = "evaluate --classifiers mlp@random --data digits --images 20 --allow-weak-classifier --out e"
        assert "Another process writes to e" in refused(line)
    assert files(here / "e") == []


def test_evaluate_names_one_model_and_warns_once() -> None:
    out = done("evaluate --classifiers mlp@random --data digits --images 20 --allow-weak-classifier --out e")
    assert re.search("^1 model, 20 images -> e$", out, re.MULTILINE)
    assert out.count("near chance") == 1
    assert "near chance" in done("report e")


def test_evaluate_table_of_some_classes_takes_the_others_from_the_logits(here: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    images = ff.data.load("digits", "test")
    rows = (images.labels == 3).logical_or(images.labels == 0).nonzero()[:12, 0]
    x, y, _ = images.batch(rows)
    lines = []
    for row, (picture, label) in enumerate(zip(x[:, 0], y.tolist(), strict=True)):
        image.fromarray((picture * 255).round().byte().numpy()).save(f"{row}.png")
        lines.append(f"{row}.png,{label},test\n")
    Path("some.csv").write_text("".join(lines))
    few = "--suite curve --steps 1 --restarts 1 --threat Linf:0.01"
    done(f"evaluate --classifiers {guide()} --data some.csv --channels 1 {few} --out e")
    clean = next(found for found in load(here / "e") if found.attack == "none")
    network = ff.resolve_classifier(str(guide()), lambda split: images).network
    right = network((x * 255).round() / 255).argmax(1) == y
    assert (clean.n, clean.accuracy) == (12, right.sum().item() / 12)
