"""The heat map of a transfer matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from forefend.evaluation.transferability.matrix import ALONE, DEFENDED, TransferMatrix, cell_of
from forefend.report.heat_map import heat_map


def matrix(right: int) -> TransferMatrix:
    """Two classifiers of which one is no source; `right` of ten images under every attack."""
    rows = [
        ("", "", ALONE),
        *((attack, "one", behind) for attack in ("PGD-20", "FGSM") for behind in (ALONE, DEFENDED)),
    ]
    wrong = [False] * right + [True] * (10 - right)
    cells = [cell_of(row, name, name == "one", wrong) for name in ("one", "two") for row in rows]
    return TransferMatrix(cells, "Linf:0.1", 0, {"defense": "rtfe defense", "data": "digits"})


def test_heat_map_shows_every_accuracy_and_frames_the_white_box(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    heat_map(matrix(7), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["transfer.png", "transfer.svg"]
    first = image.imread(tmp_path / "transfer.png")
    red = (first[..., 0] > 0.9) & (first[..., 1:3].max(-1) < 0.1)
    assert red.sum() > 100
    drawn = (tmp_path / "transfer.svg").read_text()
    assert drawn.count("<!-- 70 -->") == 2 * 2 * 3
    for text in ("clean", "one behind the defense", "two (unseen)", "PGD-20, Linf:0.1", "images crafted on"):
        assert f"<!-- {text} -->" in drawn
    heat_map(matrix(2), tmp_path)
    assert (image.imread(tmp_path / "transfer.png") != first).any()
