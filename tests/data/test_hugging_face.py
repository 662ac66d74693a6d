"""Data sets that Hugging Face's own library writes and holds."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from forefend.checks import InputError
from forefend.data import ImageDataset, as_image_dataset, load
from forefend.data.dataset import dataset_digest
from forefend.evaluation.evaluate import evaluate

Image = pytest.importorskip("PIL.Image")
datasets = pytest.importorskip("datasets")
NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def picture(value: int, height: int = 6, width: int = 8) -> Any:
    return Image.fromarray(np.full((height, width, 3), value % 256, np.uint8))


def table(count: int = 6, label: str = "label", image: str = "image", **more: Any) -> Any:
    features = {image: datasets.Image(), label: datasets.ClassLabel(names=NAMES), **{k: v[0] for k, v in more.items()}}
    columns = {image: [picture(20 * row) for row in range(count)], label: [row % 3 for row in range(count)]}
    columns |= {name: values for name, (_, values) in more.items()}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def values(images: ImageDataset) -> list[int]:
    x, _, _ = images.batch(torch.arange(len(images)))
    return x[:, 0, 0, 0].mul(255).round().int().tolist()


@pytest.mark.parametrize(("held", "image", "label"), [("test", "image", "label"), ("validation", "img", "fine_label")])
def test_read_saved_dict_keeps_splits_and_class_names(held: str, image: str, label: str, tmp_path: Path) -> None:
    whole = table(label=label, image=image)
    datasets.DatasetDict({"train": whole, held: whole.select([4, 2])}).save_to_disk(tmp_path / "pets")
    train, test = load(tmp_path / "pets", "train"), load(str(tmp_path / "pets"), "test")
    assert (train.classes, train.labels.tolist(), train.shape) == (tuple(NAMES), [0, 1, 2, 0, 1, 2], (3, 6, 8))
    assert values(train) == [0, 20, 40, 60, 80, 100]
    assert (test.labels.tolist(), values(test), test.index.tolist(), test.name) == ([1, 2], [80, 40], [0, 1], "pets")
    assert dataset_digest(train) == dataset_digest(load(tmp_path / "pets", "train")) != dataset_digest(test)


def test_read_saved_dataset_takes_its_split_or_a_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = table(30)
    whole.save_to_disk(tmp_path / "one")
    train, test = load(tmp_path / "one", "train"), load(tmp_path / "one", "test")
    assert sorted(train.index.tolist() + test.index.tolist()) == list(range(30))
    assert 0 < len(test) < 12
    assert "one is not split into train and test" in capsys.readouterr().out
    whole._split = datasets.Split.TRAIN
    whole.save_to_disk(tmp_path / "two")
    assert len(load(tmp_path / "two", "train")) == 30
    with pytest.raises(InputError, match="holds the split train alone, expected test: save a DatasetDict of both"):
        load(tmp_path / "two", "test")


def test_objects_are_read_without_a_copy_on_disk() -> None:
    whole = table()
    images = as_image_dataset(whole)
    assert (images.classes, values(images), images.split) == (tuple(NAMES), [0, 20, 40, 60, 80, 100], "test")
    both = datasets.DatasetDict({"train": whole, "test": whole.select([3])})
    assert values(as_image_dataset(both)) == [60]
    assert len(as_image_dataset(both, split="train")) == 6
    assert as_image_dataset(whole, size=4, channels=1).shape == (1, 4, 4)
    assert values(as_image_dataset(whole.with_format("torch"))) == [0, 20, 40, 60, 80, 100]
    with pytest.raises(InputError, match="has the splits train, expected test"):
        as_image_dataset(datasets.DatasetDict({"train": whole}))


def test_evaluate_takes_a_hugging_face_dataset() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 3))
    assert [found.n for found in evaluate(network, table(), [], allow_weak=True)] == [6]


def test_loader_of_dictionaries_is_read() -> None:
    for batches in (DataLoader(table().with_format("torch"), batch_size=4), DataLoader(table(), batch_size=4)):
        images = as_image_dataset(batches)
        assert (values(images), images.labels.tolist()) == ([0, 20, 40, 60, 80, 100], [0, 1, 2, 0, 1, 2])
        assert images.classes == tuple(NAMES)


def test_own_transform_of_a_dataset_is_kept() -> None:
    def transform(rows: dict[str, Any]) -> dict[str, Any]:
        x = [torch.full((1, 2, 2), image.width / 100) for image in rows["image"]]
        return {"pixel_values": x, "label": rows["label"]}

    images = as_image_dataset(table().with_transform(transform))
    assert (images.shape, images.classes) == ((1, 2, 2), tuple(NAMES))
    assert torch.equal(images.batch(torch.arange(1))[0], torch.full((1, 1, 2, 2), 0.08))


def test_labels_as_text_or_numbers() -> None:
    words = datasets.Dataset.from_dict({"image": [picture(0), picture(9)], "label": ["dog", "cat"]})
    words = words.cast_column("image", datasets.Image())
    assert (as_image_dataset(words).classes, as_image_dataset(words).labels.tolist()) == (("cat", "dog"), [1, 0])
    numbers = words.remove_columns("label").add_column("label", [0, 2])
    assert as_image_dataset(numbers).classes == ("0", "1", "2")


def test_images_as_arrays_are_read() -> None:
    features = datasets.Features(
        {"pixel_values": datasets.Array3D((3, 4, 4), "float32"), "labels": datasets.Value("int64")}
    )
    x = np.random.RandomState(0).rand(5, 3, 4, 4).astype(np.float32)
    whole = datasets.Dataset.from_dict({"pixel_values": list(x), "labels": [0, 1, 0, 1, 1]}, features=features)
    assert torch.equal(as_image_dataset(whole).batch(torch.arange(5))[0], torch.from_numpy(x))


def test_ambiguous_or_missing_columns_are_asked_for() -> None:
    coarse = {"coarse": (datasets.ClassLabel(names=["x", "y"]), [0] * 6)}
    assert as_image_dataset(table(**coarse)).classes == tuple(NAMES)  # the usual name
    with pytest.raises(InputError, match=r"several columns of labels \(fine, coarse\), expected one: remove or rename"):
        as_image_dataset(table(label="fine", **coarse))
    with pytest.raises(InputError, match=r"several columns of images \(image, img\)"):
        as_image_dataset(table(img=(datasets.Image(), [picture(0)] * 6)))
    with pytest.raises(InputError, match="has no column of labels among image: name it label or labels"):
        as_image_dataset(table().remove_columns("label"))
    with pytest.raises(InputError, match="has no column of images among label"):
        as_image_dataset(table().remove_columns("image"))


def test_labels_that_are_no_classes_raise() -> None:
    bare = table().remove_columns("label")
    for column, words in (
        ([0.0, 1.0] * 3, "labels of type float"),
        ([0, None] * 3, "NoneType"),
        ([0] * 6, "one class"),
    ):
        with pytest.raises(InputError, match=words):
            as_image_dataset(bare.add_column("label", column))
    with pytest.raises(InputError, match="range over -1 … 2"):
        as_image_dataset(bare.add_column("label", [-1, 0, 1, 2, 0, 1]))


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    mixed = datasets.Dataset.from_dict({"image": [picture(0), picture(9, 10, 12)], "label": [0, 1]})
    mixed = mixed.cast_column("image", datasets.Image())
    with pytest.raises(InputError, match="The Dataset has pictures of 2 sizes, from 6x8 to 10x12: give one"):
        as_image_dataset(mixed)
    assert values(as_image_dataset(mixed, size=6)) == [0, 9]


def test_damaged_or_missing_picture_is_named() -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)).save(file, "PNG")
    cells = [{"bytes": file.getvalue()[:2000], "path": None}, {"bytes": None, "path": "gone.png"}, None]
    for cell, words in zip(
        cells, ("Image 1 of The Dataset is not a readable", "FileNotFoundError", "missing"), strict=True
    ):
        rows = [{"bytes": file.getvalue(), "path": None}, cell]
        whole = datasets.Dataset.from_dict({"image": rows, "label": [0, 1]}).cast_column("image", datasets.Image())
        with pytest.raises(InputError, match=words):
            as_image_dataset(whole, size=8).batch(torch.arange(2))


def test_read_damaged_folder_or_without_the_library_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().save_to_disk(tmp_path / "one")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"no table")
    with pytest.raises(InputError, match="one is not a readable Hugging Face data set"):
        load(tmp_path / "one", "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"needs datasets: pip install 'forefend\[datasets\]'"):
        load(tmp_path / "one", "train")


def test_given_classes_take_precedence_and_logits_number_the_rest() -> None:
    bare = table().remove_columns("label").add_column("label", [3, 5, 3, 5, 4, 5])
    with pytest.raises(InputError, match="none is 0"):
        as_image_dataset(bare)
    assert as_image_dataset(bare, classes=7).classes == tuple("0123456")
    assert as_image_dataset(bare, classes="abcdefgh").classes == tuple("abcdefgh")
    assert as_image_dataset(table(), classes=["x", "y", "z"]).classes == ("x", "y", "z")
    assert as_image_dataset(table(), classes=lambda x: 9).classes == tuple(NAMES)
    with pytest.raises(InputError, match="0 … 1 for 2 classes"):
        as_image_dataset(table(), classes=2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 10))
    assert [found.n for found in evaluate(network, bare, [], allow_weak=True)] == [6]
