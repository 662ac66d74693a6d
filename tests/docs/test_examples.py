"""The example runs as it is printed; the default suite only shortens the training."""

from __future__ import annotations

import dataclasses
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forefend as ff
from forefend.recipes.base import Recipe
from forefend.training import trainer

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "protect_a_classifier.py"


def row(table: str, start: str) -> list[float]:
    """The accuracies in one row of a printed table."""
    line = next(line for line in table.splitlines() if re.match(start, line))
    return [float(number) for number in re.findall(r"([\d.]+) \[", line)]


def shortened(epochs: int) -> Callable[..., Any]:
    """`fit` with at most so many epochs."""
    real = trainer.fit

    def fit(recipe: Recipe, *arguments: Any, **options: Any) -> Any:
        return real(dataclasses.replace(recipe, epochs=min(recipe.epochs, epochs)), *arguments, **options)  # type: ignore

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
