"""The example runs as it is printed; the default suite shortens the training."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import forefend as ff
from forefend.recipes.base import Recipe
from forefend.training import trainer

EXAMPLE = Path(__file__).parents[2] / "examples" / "protect_a_classifier.py"


def rows(printed: str) -> list[list[float]]:
    """The accuracies in each row of the printed tables."""
    lines = [line for line in printed.splitlines() if line.startswith("classifier ") and " n=" in line]
    return [[float(number) for number in re.findall(r"([\d.]+) \[", line)] for line in lines]


def test_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fit(recipe: Recipe, *arguments: Any) -> nn.Module:
        return trainer.fit(dataclasses.replace(recipe, epochs=min(recipe.epochs, 2)), *arguments)

    load = ff.data.load
    small = {"train": 1000, "test": 100}
    monkeypatch.setattr(ff.data, "load", lambda name, split: ff.data.sample(load(name, split), small[split], 0))
    monkeypatch.setattr(ff, "fit", fit, raising=False)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    alone, defended = rows(capsys.readouterr().out)
    assert len(alone) == len(defended) == 3
    assert alone[0] > 50


@pytest.mark.slow
@pytest.mark.timeout(900)  # minutes on a shared machine
def test_example_protects_its_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    alone, defended = rows(capsys.readouterr().out)
    assert alone[0] > 90
    assert defended[0] > 90
    assert defended[2] > alone[2] + 30
