"""The examples and README's own block run as they are printed; the default suite only shortens the training."""

from __future__ import annotations

import dataclasses
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import done, guide

import forefend as ff
from forefend.cli.resolve_classifiers import Finder
from forefend.recipes.base import Recipe
from forefend.training import trainer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "protect_a_classifier.py"


def row(table: str, start: str) -> list[float]:
    """The accuracies in one row of a printed table."""
    line = next(line for line in table.splitlines() if re.match(start, line))
    return [float(number) for number in re.findall(r"([\d.]+) \[", line)]


def shortened(epochs: int) -> Callable[..., None]:
    """`fit` with at most so many epochs."""
    real = trainer.fit

    def fit(recipe: Recipe, *arguments: Any, **options: Any) -> None:
        real(dataclasses.replace(recipe, epochs=min(recipe.epochs, epochs)), *arguments, **options)  # type: ignore

    return fit


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ff, "fit", shortened(2), raising=False)
    monkeypatch.setattr(ff.suites, "curve", lambda threats: ff.suites.quick(threats[0])[:1])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    assert len(row(out, r"cnn \(guide\) +no")) == len(row(out, r"cnn \(guide\) +yes")) == 2
    assert row(out, r"cnn \(guide\) +no")[0] > 50


@pytest.mark.slow
def test_the_example_protects_its_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = capsys.readouterr().out
    print(out)
    alone, defended = row(out, r"cnn \(guide\) +no"), row(out, r"cnn \(guide\) +yes")
    assert alone[0] > 90
    assert defended[0] > 90
    assert defended[2] > alone[2] + 30


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_the_block_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not blocks():
        pytest.skip("README.md has no Python block")
    monkeypatch.chdir(tmp_path)
    load, classifier = ff.data.load, Finder(lambda split: ff.data.load("digits", split), tmp_path).find(str(guide()))
    done(f"train rtfe --guides {guide()} --images 60 --epochs 1 --steps 1 --out runs/demo")
    monkeypatch.setattr(ff.data, "load", lambda *words: ff.data.sample(load(*words), 40, 0))
    for block in blocks():
        exec(compile(block, "README.md", "exec"), {"classifier": classifier.network})
    out = capsys.readouterr().out
    assert len(row(out, r"classifier \(guide\) +yes")) == 2
    assert "n=40" in out
