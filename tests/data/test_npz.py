from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import ImageDataset, load

X = np.random.RandomState(0).randint(0, 256, (4, 3, 5, 6), dtype=np.uint8)
Y = np.array([0, 2, 1, 0])


def save(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "mine.npz", **arrays)
    return str(folder / "mine.npz")


def pixels(images: ImageDataset) -> torch.Tensor:
    return images.batch(torch.arange(len(images)))[0]


def test_load_every_layout_returns_same_images(tmp_path: Path) -> None:
    expected = torch.from_numpy(X).float() / 255
    for x in (X, X.transpose(0, 2, 3, 1), X / 255, (X / 255).astype(np.float32), (X / 255).astype(">f8")):
        images = load(save(tmp_path, x=x, y=Y), "test")
        assert torch.allclose(pixels(images), expected, atol=1e-7)
        assert (images.name, images.shape, images.classes) == ("mine", (3, 5, 6), ("0", "1", "2"))
    gray = load(save(tmp_path, x=X[:, 0], y=Y[:, None].astype(np.uint8)), "test")
    assert torch.equal(pixels(gray), expected[:, :1])
    assert (gray.pixels.dtype, gray.labels.tolist()) == (torch.uint8, Y.tolist())


def test_load_splits_share_their_classes(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=X, y_train=Y, x_test=X[:1], y_test=Y[:1])
    train, test = load(path, "train"), load(path, "test")
    assert (len(train), len(test), train.split, test.split) == (4, 1, "train", "test")
    assert train.classes == test.classes == ("0", "1", "2")
    named = save(tmp_path, x_train=X, y_train=Y, classes=np.array(["cat", "dog", "eel"]))
    assert load(named, "train").classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "no arrays x_test and y_test"),
        ({"x_train": X, "y_train": Y}, "no arrays x_test and y_test"),
        ({"x": X[:0], "y": Y[:0]}, "holds no images"),
        ({"x": X[:3], "y": Y}, "4 labels for 3 images"),
        ({"x": X, "y": Y[:0]}, "0 labels for 4 images"),
        ({"x": X, "y": 0 * Y}, "mine.npz: It has one class, '0', expected two or more"),
        ({"x": X, "y": -Y}, "-2 … 0"),
        ({"x": X, "y": Y / 2}, "float64 of shape"),
        ({"x": X, "y": np.eye(4, dtype=int)}, r"shape \(4, 4\), expected integers"),
        ({"x": X, "y": np.array(1)}, "expected integers"),
        ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, "0 … 1 for 2 classes"),
        ({"x": X / 127.5 - 1, "y": Y}, "they look normalized"),
        ({"x": X.astype(float), "y": Y}, "divide by 255"),
        ({"x": np.where(X > 9, np.nan, 0.5), "y": Y}, "NaN"),
        ({"x": X.astype(int), "y": Y}, "int64, expected floats"),
        ({"x": X[:, :2], "y": Y}, "only one of the two"),
        ({"x": X[:, :, :, :3], "y": Y}, "only one of the two"),
        ({"x": X[0, 0], "y": Y}, r"\(5, 6\)"),
        ({"x": X.astype(object), "y": Y}, "not a readable .npz of plain arrays"),
    ],
)
def test_load_ambiguous_or_wrong_arrays_raises(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(save(tmp_path, **arrays), "test")


def test_load_train_from_unnamed_arrays_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name the training images x_train and y_train"):
        load(save(tmp_path, x=X, y=Y), "train")


def test_load_file_that_is_no_archive_raises(tmp_path: Path) -> None:
    path = Path(save(tmp_path, x=X, y=Y))
    for content in (b"", b"PK\x03\x04", path.read_bytes()[:-30], b"no archive"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"mine\.npz is not a readable \.npz"):
            load(str(path), "test")
    path.unlink()
    with pytest.raises(InputError, match="There is no file"):
        load(str(path), "test")


def test_read_labels_without_0_raises_unless_classes_are_named(tmp_path: Path) -> None:
    path = save(tmp_path, x_train=X, y_train=Y + 1, x_test=X, y_test=Y + 1)
    for split in ("train", "test"):
        with pytest.raises(InputError, match=r"mine\.npz: The labels range over 1 … 3 and none is 0"):
            load(path, split)
    assert load(save(tmp_path, x_train=X, y_train=Y, x_test=X, y_test=Y + 1), "test").labels.tolist() == [1, 3, 2, 1]
    assert len(load(save(tmp_path, x=X, y=Y + 1, classes=np.array(list("abcd"))), "test").classes) == 4


def test_read_takes_paths_and_upper_case_suffix(tmp_path: Path) -> None:
    Path(save(tmp_path, x=X, y=Y)).rename(tmp_path / "MINE.NPZ")
    assert len(load(tmp_path / "MINE.NPZ", "test")) == 4
    for wrong in ({"size": 8}, {"channels": 1}):
        with pytest.raises(InputError, match="only pictures need it"):
            load(tmp_path / "MINE.NPZ", "test", **wrong)
    for name in (None, 3, b"mine.npz"):
        with pytest.raises(InputError, match="expected a name"):
            load(name, "test")


def test_read_pipe_raises(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.npz")
    with pytest.raises(InputError, match="pipe or device"):
        load(tmp_path / "mine.npz", "test")


ALIASES = [
    ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "Y_train", "X_test", "Y_test"),
    ("train_images", "train_labels", "val_images", "val_labels"),
    ("images_train", "labels_train", "images_test", "labels_test"),
    ("train_data", "train_targets", "validation_data", "validation_targets"),
]


@pytest.mark.parametrize("names", ALIASES)
def test_load_knows_the_usual_names(names: tuple[str, ...], tmp_path: Path) -> None:
    path = save(tmp_path, **dict(zip(names, (X, Y, X[:2], Y[:2, None]), strict=True)))
    train, test = load(path, "train"), load(path, "test")
    assert (train.labels.tolist(), test.labels.tolist()) == (Y.tolist(), Y[:2].tolist())
    assert train.classes == test.classes == ("0", "1", "2")
    assert torch.equal(pixels(test), pixels(train)[:2])


def test_load_prefers_test_to_validation_images(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        val_images=X,
        val_labels=Y,
        test_images=X[:1],
        test_labels=Y[:1],
        class_names=np.array(["a", "b", "c"]),
    )
    assert len(load(path, "test")) == 1
    assert load(path, "test").classes == ("a", "b", "c")
    assert len(load(save(tmp_path, images=X, labels=Y), "test")) == 4


def test_load_ambiguous_names_or_too_large_images_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"several columns of test images \(x_test, test_images\), expected one"):
        load(save(tmp_path, x_test=X, test_images=X, y_test=Y), "test")
    np.savez(tmp_path / "mine.npz", X, Y)
    with pytest.raises(InputError, match="no arrays x_test and y_test, but arr_0, arr_1: save the images"):
        load(tmp_path / "mine.npz", "test")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 300}))
    with pytest.raises(InputError, match=r"The images x of .* GB are available: save them as uint8"):
        load(save(tmp_path, x=X, y=Y), "test")


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_load_square_images_of_any_channels(channels: int, tmp_path: Path) -> None:
    x = np.random.RandomState(0).randint(0, 256, (4, channels, 6, 6), dtype=np.uint8)
    expected = torch.from_numpy(x).float() / 255
    for layout in (x, x.transpose(0, 2, 3, 1)):
        assert torch.equal(pixels(load(save(tmp_path, x=layout, y=Y), "test")), expected)
