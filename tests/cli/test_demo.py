from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command_line import done, files, forefend, refused

from forefend.cli import demo
from forefend.evaluation import suites
from forefend.evaluation.results import Result, load
from forefend.runtime.run_folder import Run

CLASSIFIERS = {("cnn", True), ("tinyresnet", True), ("mlp", False)}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo as short as possible."""
    monkeypatch.setattr(demo, "NATURAL", {"epochs": 2, "batch_size": 64})
    monkeypatch.setattr(demo, "RTFE", demo.RTFE | {"steps": 1, "epochs": 1, "lr": 0.1})
    monkeypatch.setattr(demo, "RADII", (0.1,))
    monkeypatch.setattr(suites, "curve", lambda threats: suites.quick(threats[0])[:1])


@pytest.mark.usefixtures("small")
def test_demo_writes_run_table_and_picture(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    out = done(f"demo --out {folder} --seed 2")
    left = set(files(folder))
    assert {"config.json", "defense.json", "weights.safetensors", "train.jsonl", "checkpoint.safetensors"} <= left
    assert {"records.jsonl", "summary.json", "picture.png"} <= left
    assert (folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert {(c.classifier, c.seen) for c in load(folder)} == CLASSIFIERS
    assert {c.defended for c in load(folder)} == {True, False}
    assert {c.seed for c in load(folder)} == {2}
    assert {c.n for c in load(folder)} == {539}
    assert "mlp (unseen)" in out
    assert "cnn (guide)" in out
    assert f"picture: {folder}/picture.png" in out
    assert f"open the evidence page in a browser: {folder}/report.html" in out
    assert "Evidence: demo" in (folder / "report.html").read_text(encoding="utf-8")
    config = Run(folder).config
    assert config["settings"].items() >= demo.RTFE.items()
    assert (config["recipe"], config["data"], config["seed"]) == ("rtfe", "digits", 2)


@pytest.mark.usefixtures("small")
def test_demo_again_changes_nothing(tmp_path: Path) -> None:
    """The suggested command runs, a second demo changes nothing, another seed is refused."""
    folder = tmp_path / "demo"
    first = done(f"demo --out {folder}")
    suggested = next(line for line in first.splitlines() if " evaluate " in line)
    done(
        f"{suggested[suggested.index('evaluate') :]} --images 20 --classifiers {folder / 'mlp'} --out {tmp_path / 'e'}"
    )
    assert {(c.classifier, c.seen) for c in load(tmp_path / "e")} == CLASSIFIERS
    before = {name: (folder / name).read_bytes() for name in ("weights.safetensors", "records.jsonl", "summary.json")}
    again = done(f"demo --out {folder}")
    assert "epoch 1" not in again
    assert [line for line in first.splitlines() if "n=" in line] == [
        line for line in again.splitlines() if "n=" in line
    ]
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert "belongs to another configuration (seed was 0, now 1)" in refused(f"demo --out {folder} --seed 1")


def test_demo_without_sklearn_prints_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    assert "pip install 'forefend[demo]'" in refused(f"demo --out {tmp_path / 'demo'}")
    assert files(tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_defends_guides_and_unseen_classifier(tmp_path: Path) -> None:
    answer = forefend(f"demo --out {tmp_path / 'demo'}")
    assert answer.code == 0, answer.err
    cells = load(tmp_path / "demo")
    print(json.dumps([(c.classifier, c.defended, c.radius, round(c.accuracy, 3)) for c in cells]))

    def of(radius: float, *, defended: bool) -> dict[tuple[str, bool], Result]:
        return {(c.classifier, c.seen): c for c in cells if c.radius == radius and c.defended == defended}

    assert set(of(0.15, defended=True)) == CLASSIFIERS
    assert any(all(c.accuracy <= 0.05 for c in of(radius, defended=False).values()) for radius in demo.RADII)
    for (name, seen), cell in of(0.15, defended=True).items():
        assert cell.accuracy >= (0.80 if seen else 0.78), name
    for defended in (False, True):
        assert all(c.accuracy >= 0.95 for c in of(0.0, defended=defended).values())
