from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import sample
from forefend.data.cifar import CIFAR10, CIFAR100
from forefend.data.corruption_sets import corruptions, read


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """Return five severities of three images; the values of the pixels identify them."""
    root = tmp_path / "CIFAR-10-C"
    root.mkdir()
    rows = np.arange(15, dtype=np.uint8)
    fog = np.broadcast_to(rows[:, None, None, None], (15, 32, 32, 3)) + np.array([0, 100, 200], np.uint8)
    np.save(root / "fog.npy", fog)
    np.save(root / "snow.npy", 255 - fog)
    np.save(root / "labels.npy", np.tile([3, 8, 0], 5).astype(np.uint8))
    return root


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(InputError) as error:
        read(*arguments, **options)  # type: ignore[arg-type]
    return str(error.value)


def test_read_severity_returns_its_rows_channels_first(arrays: Path) -> None:
    assert corruptions(arrays) == ("fog", "snow")
    images = read(arrays, "fog", 4)
    x, y, index = images.batch(torch.arange(3))
    assert x.shape == (3, 3, 32, 32)
    assert (255 * x[:, :, 5, 7]).round().tolist() == [[k, 100 + k, 200 + k] for k in (9, 10, 11)]
    assert (y.tolist(), index.tolist(), images.classes) == ([3, 8, 0], [0, 1, 2], CIFAR10)
    assert torch.allclose(read(arrays, "snow", 4).batch(torch.arange(3))[0], 1 - x)


def test_read_smaller_array_names_its_size(arrays: Path) -> None:
    assert read(arrays, "fog", 1).name == "CIFAR-10-C (3 of 10000)"


def test_read_full_array_keeps_plain_name(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "fog.npy", "w+", np.uint8, (50000, 32, 32, 3)).flush()
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10000) % 10, 5))
    images = read(tmp_path, "fog", 5)
    assert (images.name, len(images), len(sample(images, 30, 0))) == (tmp_path.name, 10000, 30)


def test_read_label_above_nine_uses_cifar100_classes(arrays: Path) -> None:
    np.save(arrays / "labels.npy", np.tile([3, 99, 0], 5))
    assert read(arrays, "fog", 1).classes == CIFAR100
    assert "0 … 9" in refusal(arrays, "fog", 1, classes=CIFAR10)


def test_read_missing_corruption_or_severity_raises(arrays: Path, tmp_path: Path) -> None:
    assert "did you mean 'snow'?" in refusal(arrays, "snaw", 1)
    assert "severity is 6, expected a whole number from 1 to 5" in refusal(arrays, "fog", 6)
    assert "only a folder of images" in refusal(arrays, "fog", 1, size=32)
    assert "There is no folder" in refusal(tmp_path / "nowhere", "fog", 1)
    (tmp_path / "empty").mkdir()
    assert "holds no corrupted images" in refusal(tmp_path / "empty", "fog", 1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.zeros((16, 32, 32, 3), np.uint8), "16 images, expected five severities"),
        (np.zeros((15, 3, 32, 32), np.uint8), "shape (15, 3, 32, 32), expected uint8 (50000, 32, 32, 3)"),
        (np.zeros((15, 32, 32, 3)), "holds float64 of shape"),
        (np.zeros((0, 32, 32, 3), np.uint8), "shape (0, 32, 32, 3)"),
        (np.zeros(15, np.uint8), "shape (15,)"),
    ],
)
def test_read_array_of_other_shape_raises(arrays: Path, wrong: np.ndarray, words: str) -> None:
    np.save(arrays / "fog.npy", wrong)
    assert words in refusal(arrays, "fog", 1)


def test_read_wrong_labels_raises(arrays: Path) -> None:
    np.save(arrays / "labels.npy", np.zeros(3, np.uint8))
    assert "(3,), expected integers (15,), one for each image of fog.npy" in refusal(arrays, "fog", 1)
    np.save(arrays / "labels.npy", np.zeros(15))
    assert "holds float64" in refusal(arrays, "fog", 1)
    (arrays / "labels.npy").unlink()
    assert re.search(r"There is no .*labels\.npy", refusal(arrays, "fog", 1))


def test_read_damaged_file_raises(arrays: Path) -> None:
    whole = (arrays / "fog.npy").read_bytes()
    for damaged in (b"", b"no numbers at all", whole[:5000], whole[:40]):
        (arrays / "fog.npy").write_bytes(damaged)
        assert "fog.npy is not a readable .npy" in refusal(arrays, "fog", 1)
    np.save(arrays / "fog.npy", np.array([{}]), allow_pickle=True)
    assert "fog.npy is not a readable .npy" in refusal(arrays, "fog", 1)
    with (arrays / "fog.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3))
    assert "archive of several arrays" in refusal(arrays, "fog", 1)


@pytest.mark.parametrize("group", ["", "weather/"])
def test_read_folder_with_or_without_groups_returns_images(tmp_path: Path, group: str) -> None:
    image = pytest.importorskip("PIL.Image")
    for severity in (1, 5):
        for name, value in (("n02", 10 * severity), ("n01", 100)):
            path = tmp_path / f"{group}fog/{severity}/{name}/a.png"
            path.parent.mkdir(parents=True)
            image.fromarray(np.full((9, 8, 3), value, np.uint8)).save(path)
    assert corruptions(tmp_path) == ("fog",)
    images = read(tmp_path, "fog", 5, size=8)
    x, y, _ = images.batch(torch.arange(2))
    assert ((255 * x).round().mean((1, 2, 3)).tolist(), y.tolist(), images.classes) == (
        [100, 50],
        [0, 1],
        ("n01", "n02"),
    )
    assert read(tmp_path, "fog", 5, size=8, classes=("n00", "n01", "n02")).labels.tolist() == [1, 2]
    assert "has the class 'n02'" in refusal(tmp_path, "fog", 5, size=8, classes=("n01",))
    assert read(tmp_path, "fog", 5).shape == (3, 9, 8)
    assert "holds no images" in refusal(tmp_path, "fog", 2, size=8)
