from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from forefend.checks import InputError
from forefend.data import load, sample
from forefend.data.image_folder import decode
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.suites import general
from forefend.threat_models.lp import Linf

Image = pytest.importorskip("PIL.Image")


def paint(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def flat(value: int) -> np.ndarray:
    return np.full((10, 12, 3), value, np.uint8)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    paint(tmp_path / "train/cat/b.png", flat(20))
    paint(tmp_path / "train/cat/a.PNG", flat(10))
    paint(tmp_path / "train/dog/deep/c.jpg", flat(30))
    paint(tmp_path / "val/dog/d.jpeg", flat(40))
    (tmp_path / "train/cat/notes.txt").write_text("no picture")
    (tmp_path / "train/cat/._b.png").write_text("left by a file manager")
    return tmp_path


def test_read_numbers_classes_and_files_alphabetically(pets: Path) -> None:
    train = load(str(pets), "train", size=8)
    x, y, index = train.batch(torch.tensor([2, 0]))
    assert (len(train), train.shape, train.classes, x.dtype) == (3, (3, 8, 8), ("cat", "dog"), torch.float32)
    assert (y.tolist(), index.tolist()) == ([1, 0], [2, 0])
    assert torch.equal(x[1], torch.full((3, 8, 8), 10 / 255))
    assert x[0].mul(255).round().unique().tolist() == [30]


def test_batch_of_no_rows_is_empty(pets: Path) -> None:
    x, y, index = load(str(pets), "train", size=8).batch(torch.tensor([], dtype=torch.int64))
    assert (x.shape, x.dtype, len(y), len(index)) == ((0, 3, 8, 8), torch.float32, 0, 0)


def test_evaluate_image_folder_resumes(pets: Path) -> None:
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2)), load(str(pets), "train", size=8)
    suite = general.quick(Linf(0.1))
    cells = [evaluate(network, images, suite, folder=pets / "out", allow_weak=True) for _ in range(2)]
    assert cells[0] == cells[1]
    assert {cell.n for cell in cells[0]} == {3}


def test_read_val_as_test_with_classes_of_train(pets: Path) -> None:
    test = load(str(pets), "test", size=8)
    assert (test.labels.tolist(), test.classes, test.name) == ([1], ("cat", "dog"), pets.name)
    paint(pets / "test/cat/e.png", flat(50))
    assert load(str(pets), "test", size=8).labels.tolist() == [0]


def test_subset_and_sample_keep_the_index(pets: Path) -> None:
    train = load(str(pets), "train", size=8)
    assert train.subset(torch.tensor([2, 1])).batch(torch.tensor([0]))[2].item() == 2
    assert len(sample(train, 2, seed=0)) == 2
    with pytest.raises(InputError, match="holds no images"):
        train.subset(torch.tensor([], dtype=torch.int64))


def test_batch_decodes_only_its_images(pets: Path) -> None:
    train = load(str(pets), "train", size=8)
    (pets / "train/cat/b.png").write_bytes(b"no picture")
    assert len(train.batch(torch.tensor([0, 2]))[0]) == 2
    with pytest.raises(InputError, match=r"cat/b\.png is not a readable image"):
        train.batch(torch.tensor([0, 1]))


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (6, 6), (7, 12)])
def test_decode_crops_central_square(tmp_path: Path, shape: tuple[int, int]) -> None:
    height, width = shape
    array = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    size = min(shape)
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = array[top : top + size, left : left + size].transpose(2, 0, 1)
    assert np.array_equal(decode(paint(tmp_path / "p.png", array), size).numpy(), expected)


def test_decode_resizes_shorter_side(tmp_path: Path) -> None:
    halves = np.zeros((40, 80, 3), np.uint8)
    halves[:, 40:] = 200
    small = decode(paint(tmp_path / "p.png", halves), 10)
    assert small.shape == (3, 10, 10)
    assert (small[:, :, :4] == 0).all()
    assert (small[:, :, 6:] == 200).all()
    assert decode(tmp_path / "p.png", 64).shape == (3, 64, 64)


def test_decode_is_antialiased(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = decode(paint(tmp_path / "p.png", stripes), 8)
    assert (small[:, :, 1:-1].float() - 100).abs().max() <= 2


def test_decode_converts_to_rgb(tmp_path: Path) -> None:
    gray = decode(paint(tmp_path / "g.png", np.full((8, 8), 7, np.uint8)), 8)
    clear = decode(paint(tmp_path / "t.png", np.full((8, 8, 4), 7, np.uint8)), 8)
    assert torch.equal(gray, clear)
    with pytest.raises(InputError, match="expected 8-bit"):
        decode(paint(tmp_path / "deep.png", np.full((8, 8), 700, np.uint16)), 8)


def test_decode_truncated_file_raises_with_its_name(tmp_path: Path) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in ("p.jpg", "p.png"):
        path = paint(tmp_path / name, noise)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=f"{name} is not a readable image"):
            decode(path, 32)


@pytest.mark.parametrize("size", [None, 0, -4])
def test_read_without_size_raises(pets: Path, size: int | None) -> None:
    with pytest.raises(InputError, match="size=224"):
        load(str(pets), "train", size=size)


def test_read_folder_of_other_layout_raises(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (pets / "val/eel").mkdir()
    with pytest.raises(InputError, match=r"class 'eel', which .*lacks"):
        load(str(pets), "test", size=8)
    bare = tmp_path_factory.mktemp("bare")
    with pytest.raises(InputError, match="no folder test or val"):
        load(str(bare), "test", size=8)
    (bare / "train/cat").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no images"):
        load(str(bare), "train", size=8)


def test_read_without_pillow_names_the_extra(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InputError, match=r"needs Pillow: pip install 'forefend\[data\]'"):
        load(str(pets), "train", size=8)
