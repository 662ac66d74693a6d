from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.results import attacked, cell, some_cells

from forefend.checks import InputError
from forefend.report import plots


@pytest.mark.parametrize(("channels", "count"), [(1, 12), (3, 1)])
def test_picture_writes_a_png_that_decodes(channels: int, count: int, tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    x = torch.rand(count, channels, 8, 8)
    path = tmp_path / "deep" / "picture.png"
    plots.picture(path, x, x * 1.5 - 0.2, some_cells())
    pixels = image.imread(path)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 600
    assert pixels[..., :3].std() > 0.05
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]


def test_picture_does_not_import_pyplot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    loaded = "matplotlib.pyplot" in sys.modules
    plots.picture(tmp_path / "p.png", torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8), some_cells())
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def drawn(results: list[Any]) -> dict[str, tuple[list[float], list[float], str]]:
    """Return radii, accuracies and line style of each curve by its label."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    plots._plot_curves(axis, results)
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()), line.get_linestyle()) for line in axis.lines
    }


def test_curves_show_the_worst_attack_and_guide_or_unseen() -> None:
    lines = drawn([*some_cells(), attacked("other", 0.4, "worst", 0.1, seen=False, defended=True)])
    assert lines == {
        "cnn (guide)": ([0.0, 8 / 255], [95.0, 5.0], "--"),
        "cnn (guide, defended)": ([0.0, 8 / 255], [80.0, 45.0], "-"),
        "other (unseen, defended)": ([0.0, 0.1], [90.0, 40.0], "-"),
    }


def test_curves_with_one_attack_show_it() -> None:
    cells = [attacked("cnn", 0.2, "PGD", 0.2), cell("cnn", 0.9), attacked("cnn", 0.5, "PGD", 0.1)]
    assert drawn(cells) == {"cnn (guide)": ([0.0, 0.1, 0.2], [90.0, 50.0, 20.0], "--")}


def test_picture_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'forefend\[report\]'"):
        plots.picture(tmp_path / "p.png", torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8), some_cells())
