from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import done, refused
from torch import nn

from forefend.checks import InputError
from forefend.data import load, notices, sample
from forefend.data.dataset import dataset_digest
from forefend.data.image_file import SUFFIXES
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.suites import general
from forefend.runtime import files
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
    with pytest.raises(InputError, match=r"cat/b\.png is not an image of PNG"):
        train.batch(torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, "is 0"), (-4, "is -4"), ((8, 8), "whole number"), ("8", "whole number")],
)
def test_read_without_whole_size_raises(pets: Path, size: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(pets, "train", size=size)


@pytest.mark.parametrize("names", [[str(k) for k in range(12)], ["01", "5", "10", "100"]])
def test_read_numbered_folders_in_their_order(tmp_path: Path, names: list[str]) -> None:
    for row, name in enumerate(names):
        paint(tmp_path / f"test/{name}/a.png", flat(row))
    images = load(tmp_path, "test", size=8)
    x, y, _ = images.batch(torch.arange(len(names)))
    assert images.classes == tuple(names)
    assert y.tolist() == (x[:, 0, 0, 0] * 255).round().int().tolist() == list(range(len(names)))


def test_read_named_folders_alphabetically(tmp_path: Path) -> None:
    for name in ("b", "10", "9"):
        paint(tmp_path / f"test/{name}/a.png", flat(1))
    assert load(tmp_path, "test", size=8).classes == ("10", "9", "b")


def test_read_takes_every_suffix_and_skips_hidden_files(tmp_path: Path) -> None:
    for row, suffix in enumerate(SUFFIXES):
        image = Image.fromarray(flat(20 * row))
        image.save(
            paint(tmp_path / f"test/a/{row}.png", flat(0)).with_suffix(suffix), "JPEG" if row in (1, 2, 3) else None
        )
    paint(tmp_path / "test/b/0.png", flat(0))
    for hidden in ("__MACOSX/a/._1.png", "a/__MACOSX/1.png", "a/.thumbs/1.png", ".git/1.png", "a/.1.png"):
        paint(tmp_path / "test" / hidden, flat(0))
    (tmp_path / "test/a/Thumbs.db").touch()
    images = load(tmp_path, "test", size=8)
    x = images.batch(torch.arange(len(images)))[0]
    last = [row for row in range(1, len(SUFFIXES)) for _ in range(2)]
    assert images.classes == ("a", "b")
    assert len(images) == 2 * len(SUFFIXES)  # 0.png was painted over
    assert sorted(x[:, 0, 0, 0].mul(255 / 20).round().int().tolist()) == sorted(
        [0, 0, *(0 for _ in last[::2]), *last[::2]]
    )


def test_read_warns_of_files_that_are_not_read(pets: Path) -> None:
    (pets / "train/cat/notes.txt").write_text("no image")
    (pets / "train/dog/e.heic").touch()
    with pytest.warns(UserWarning, match=r"train has files that are not read \(\.heic, \.txt\)"):
        assert len(load(pets, "train", size=8)) == 3


def test_read_as_gray_gives_one_channel(tmp_path: Path) -> None:
    paint(tmp_path / "test/a/1.png", flat(30)[:, :, 0])
    paint(tmp_path / "test/b/2.png", flat(40))
    images = load(tmp_path, "test", size=8, channels=1)
    x = images.batch(torch.arange(2))[0]
    assert (images.shape, x.shape) == ((1, 8, 8), (2, 1, 8, 8))
    assert torch.equal(x.mul(255).round().amax((1, 2, 3)), torch.tensor([30.0, 40.0]))
    assert images.subset(torch.tensor([1])).shape == (1, 8, 8)
    with pytest.raises(InputError, match="channels is 2, expected 1"):
        load(tmp_path, "test", size=8, channels=2)


def test_read_class_with_control_character_raises(tmp_path: Path) -> None:
    for name in ("a\x1b[2J", "b"):
        paint(tmp_path / f"test/{name}/1.png", flat(1))
    with pytest.raises(InputError, match="holds a character that is not text"):
        load(tmp_path, "test", size=8)


def test_dataset_digest_changes_with_one_file(pets: Path) -> None:
    images = load(pets, "train", size=8)
    before = dataset_digest(images)
    assert dataset_digest(load(pets, "train", size=8)) == before
    assert dataset_digest(load(pets, "train", size=9)) != before
    paint(images.pictures.encoded(2), flat(31))
    assert dataset_digest(images) != before


def test_read_folder_of_other_layout_raises(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (pets / "val/eel").mkdir()
    with pytest.raises(InputError, match=r"class 'eel', which .*lacks"):
        load(str(pets), "test", size=8)
    bare = tmp_path_factory.mktemp("bare")
    with pytest.raises(InputError, match="has no class folders"):
        load(str(bare), "test", size=8)
    (bare / "train/cat").mkdir(parents=True)
    with pytest.raises(InputError, match="train/cat holds no images: fill it or remove it"):
        load(str(bare), "train", size=8)
    with pytest.raises(InputError, match=r"no folder test or val, but train: expected test or val/<class>/<image>"):
        load(str(bare), "test", size=8)


def test_read_without_pillow_names_the_extra(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InputError, match=r"needs Pillow: pip install 'forefend\[data\]'"):
        load(str(pets), "train", size=8)


def test_train_and_evaluate_gray_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        for row in range(8):
            paint(tmp_path / f"pics/{split}/{row % 2}/{row}.png", flat(200 * (row % 2) + row)[:, :, 0])
    options = "--data pics --size 8 --channels 1 --allow-weak-classifier"
    done(f"train natural {options} --classifier mlp --epochs 1 --out run")
    done(f"evaluate --classifiers run {options} --suite curve --threat Linf:0.1 --out a")
    done("evaluate run --allow-weak-classifier --suite curve --threat Linf:0.1 --out b")  # as the run was trained
    assert files.read_json(tmp_path / "run/classifier.json")["channels"] == 1
    assert "images with 1 channels, but the images have 3" in refused(
        "evaluate --classifiers mlp:run/weights.safetensors --mean 0 --std 1 --data pics --size 8 --suite curve "
        "--threat Linf:0.1 --out c"
    )


def test_read_class_folders_alone_are_split_by_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in range(40):
        paint(tmp_path / f"pets/{'cat' if row % 2 else 'dog'}/{row}.png", flat(row))
    train, test = load(tmp_path / "pets", "train"), load(tmp_path / "pets", "test")
    assert (train.classes, train.shape) == (("cat", "dog"), (3, 10, 12))
    assert sorted(train.index.tolist() + test.index.tolist()) == list(range(40))
    assert 3 < len(test) < 14
    said = f"pets is not split into train and test: {len(test)} of 40 images are taken as test by a hash of their names"
    assert said in capsys.readouterr().out
    paint(tmp_path / "pets/cat/0a.png", flat(200))
    before, after = (sorted(x.unique().tolist()) for x in (pixels(test), pixels(load(tmp_path / "pets", "test"))))
    assert set(before) <= set(after)
    (tmp_path / "pets").rename(tmp_path / "moved")
    assert torch.equal(pixels(load(tmp_path / "moved", "test")), pixels(load(tmp_path / "moved", "test")))
    assert len(load(tmp_path / "moved", "test")) == len(after)


def pixels(images: Any) -> torch.Tensor:
    return images.batch(torch.arange(len(images)))[0]


@pytest.mark.parametrize(("train", "test"), [("Train", "TEST"), ("training", "validation"), ("train", "valid")])
def test_read_knows_the_usual_names_of_splits(train: str, test: str, tmp_path: Path) -> None:
    for row, name in enumerate(("a", "b")):
        paint(tmp_path / train / name / "1.png", flat(10 + row))
        paint(tmp_path / test / name / "1.png", flat(20 + row))
    assert pixels(load(tmp_path, "train"))[:, 0, 0, 0].mul(255).round().tolist() == [10, 11]
    assert pixels(load(tmp_path, "test"))[:, 0, 0, 0].mul(255).round().tolist() == [20, 21]


def test_read_pictures_of_several_sizes_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "pets/test/a/1.png", flat(1))
    paint(tmp_path / "pets/test/b/2.png", np.zeros((300, 200, 3), np.uint8))
    with pytest.raises(InputError, match="has pictures of 2 sizes, from 10x12 to 300x200: give one in pixels, such as"):
        load(tmp_path / "pets", "test")
    notices.say.cache_clear()
    assert load(tmp_path / "pets", "test", size=8).shape == (3, 8, 8)
    said = "pets: the shorter side of each picture becomes 8 pixels, and the center is cropped."
    assert said in capsys.readouterr().out
    paint(tmp_path / "pets/test/b/2.png", flat(2))
    images = load(tmp_path / "pets", "test")
    assert images.shape == (3, 10, 12)
    paint(tmp_path / "pets/test/b/2.png", np.zeros((10, 13, 3), np.uint8))
    with pytest.raises(InputError, match=r"b/2\.png is now \(3, 10, 13\), and was \(3, 10, 12\): restore it"):
        pixels(images)


def test_read_what_is_no_folder_of_classes_raises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "flat/1.png", flat(1))
    with pytest.raises(InputError, match=r"flat has no class folders: expected flat/<class>/<image>\.jpg, or a table"):
        load(tmp_path / "flat", "test")
    (tmp_path / "flat/labels.csv").write_text("1.png,a\n")
    with pytest.raises(InputError, match=r"or give the table of its pictures, .*flat/labels\.csv"):
        load(tmp_path / "flat", "test")
    paint(tmp_path / "one/test/a/1.png", flat(1))
    with pytest.raises(InputError, match="one/test has one class, 'a', expected two or more"):
        load(tmp_path / "one", "test")
    (tmp_path / "one/test/b").mkdir()
    assert load(tmp_path / "one", "test").classes == ("a", "b")
    assert "has class folders without images (b): they keep their class numbers" in capsys.readouterr().out
    (tmp_path / "pets.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"pets\.zip is a file, expected .*: unpack it, and give its folder"):
        load(tmp_path / "pets.zip", "test")
    (tmp_path / "pets.bin").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"pets\.bin is a file, expected digits, cifar-10"):
        load(tmp_path / "pets.bin", "test")
