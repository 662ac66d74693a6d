from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import svhn

io = pytest.importorskip("scipy.io")
PIXELS = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 4), dtype=np.uint8)


def write(folder: Path, **arrays: np.ndarray) -> list[Path]:
    io.savemat(folder / "test_32x32.mat", arrays)
    return [folder / "test_32x32.mat"]


def test_read_moves_axes_and_maps_label_10_to_0(tmp_path: Path) -> None:
    paths = write(tmp_path, X=PIXELS, y=np.array([[10], [1], [9], [10]], np.uint8))
    images = svhn.read("svhn", "test", paths)
    assert (images.labels.tolist(), images.shape) == ([0, 1, 9, 0], (3, 32, 32))
    x, _, index = images.batch(torch.tensor([2]))
    assert x[0, 1, 5, 7] == torch.tensor(PIXELS[5, 7, 1, 2] / 255, dtype=torch.float32)
    assert (index.item(), images.pixels.dtype, images.pixels.is_contiguous()) == (2, torch.uint8, True)


def test_read_file_of_other_arrays_raises(tmp_path: Path) -> None:
    y = np.ones((4, 1), np.uint8)
    for arrays in ({"X": PIXELS}, {"X": PIXELS[0], "y": y}, {"X": PIXELS.astype(float), "y": y}):
        with pytest.raises(InputError, match="mat is not an SVHN file"):
            svhn.read("svhn", "test", write(tmp_path, **arrays))
    with pytest.raises(InputError, match="3 labels for 4 images"):
        svhn.read("svhn", "test", write(tmp_path, X=PIXELS, y=y[:3]))
    with pytest.raises(InputError, match="1 … 11, expected 0 … 9"):
        svhn.read("svhn", "test", write(tmp_path, X=PIXELS, y=np.array([[1], [2], [3], [11]], np.uint8)))


@pytest.mark.parametrize("length", [0, 10, 5000])
def test_read_damaged_file_raises(tmp_path: Path, length: int) -> None:
    paths = write(tmp_path, X=PIXELS, y=np.ones((4, 1), np.uint8))
    paths[0].write_bytes(paths[0].read_bytes()[:length])
    with pytest.raises(InputError, match="not a readable MATLAB file"):
        svhn.read("svhn", "test", paths)


def test_read_without_scipy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(InputError, match=r"needs SciPy: pip install 'forefend\[data\]'"):
        svhn.read("svhn", "test", [tmp_path / "test_32x32.mat"])
