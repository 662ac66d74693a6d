from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import ImageDataset, load

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Ten pictures `pics/0.png` … of value 10, 20, …; the caller writes the table beside them."""
    (tmp_path / "pics").mkdir()
    for row in range(10):
        Image.fromarray(np.full((6, 8, 3), 10 * (row + 1), np.uint8)).save(tmp_path / f"pics/{row}.png")
    return tmp_path / "mine.csv"


def values(images: ImageDataset) -> list[int]:
    x, _, _ = images.batch(torch.arange(len(images)))
    return x[:, 0, 0, 0].mul(25.5).round().int().tolist()


HEADERS = [
    "path,label,split\n",
    "",
    "FileName,Class,Subset\n",
    "\ufefffile;target;set\n",
    "image_path\tcategory\tsplit\n",
]


@pytest.mark.parametrize("header", HEADERS)
def test_read_header_or_not_and_any_delimiter(header: str, table: Path) -> None:
    rows = [
        "pics/0.png,dog,train",
        "pics/1.png,cat,Test",
        f"{table.parent}/pics/2.png,dog,val",
        "",
        "pics/3.png,cat,train",
    ]
    mark = next((sign for sign in ";\t" if sign in header), ",")
    table.write_text(header + "\n".join(rows).replace(",", mark) + "\n", encoding="utf-8")
    train, test = load(table, "train"), load(str(table), "test")
    assert (train.classes, train.labels.tolist(), values(train), train.shape) == (
        ("cat", "dog"),
        [1, 0],
        [1, 4],
        (3, 6, 8),
    )
    assert (test.classes, test.labels.tolist(), values(test), test.name) == (("cat", "dog"), [0], [2], "mine")


def test_read_columns_by_name_in_any_order(table: Path) -> None:
    table.write_text("id,label,split,path\n" + "".join(f"{row},{row % 3},test,pics/{row}.png\n" for row in range(10)))
    images = load(table, "test", size=4, channels=1)
    assert (images.classes, images.labels.tolist()) == (("0", "1", "2"), [row % 3 for row in range(10)])
    assert (images.shape, images.index.tolist()) == ((1, 4, 4), list(range(10)))


def test_read_val_rows_as_test_only_without_test_rows(table: Path) -> None:
    table.write_text("pics/0.png,0,train\npics/1.png,1,val\npics/2.png,1,validation\n")
    assert values(load(table, "test")) == [2]
    table.write_text("pics/0.png,0,train\npics/1.png,1,train\n")
    with pytest.raises(InputError, match=r"mine\.csv has no images for test, but for train"):
        load(table, "test")


def test_read_table_without_splits_is_split_by_hash(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text("path,label\n" + "".join(f"pics/{row}.png,{row % 2}\n" for row in range(10)))
    train, test = load(table, "train"), load(table, "test")
    assert sorted(values(train) + values(test)) == list(range(1, 11))
    assert 0 < len(test) < 5
    said = f"mine.csv is not split into train and test: {len(test)} of 10 images are taken as test by a hash"
    assert said in capsys.readouterr().out
    kept = values(test)
    few = table.with_name("few.csv")
    few.write_text("".join(f"pics/{row}.png,{row % 2}\n" for row in range(10) if row + 1 not in kept))
    for split in ("train", "test"):  # a training without any test images to come is refused, too
        with pytest.raises(InputError, match=r"few\.csv is not split .* and . images are too few: add"):
            load(few, split)
    table.write_text(table.read_text().replace("pics/9.png,1\n", ""))  # the others stay where they are
    assert values(load(table, "test")) == [value for value in kept if value != 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("path,label\n", "has no rows"),
        ("pics/0.png,a,train\nnone.png,b,train\n", r"Line 2 of .*mine\.csv names none\.png, which is not in "),
        ("path,label\npics/0.png,a\npics/1.png,\n", r"Line 3 of .*mine\.csv has no label"),
        ("path,label\npics/0.png,a\n\npics/1.png\n", "Line 4 of .* has 1 columns, expected 2"),
        ("pics/0.png,a,train\npics/1.png,b,dev\n", "Line 2 of .* has the split 'dev', expected train, test or val"),
        ("pics/0.png,0.0,train\npics/1.png,1.0,train\n", "labels such as 0.0, expected whole numbers or names"),
        ("pics/0.png,1,train\npics/1.png,2,train\n", r"mine\.csv: The labels range over 1 … 2 and none is 0"),
        ("pics/0.png,1,train\npics/1.png,-1,train\n", "Labels range over -1 … 1"),
        ("pics/0.png,a,train\npics/1.png,a,test\n", "has one class, 'a', expected two or more"),
        ("pics/0.png,a,train\npics/1.png,b,train\npics/0.png,a,test\n", "Lines 1 and 3 of .* name the same picture"),
        ("id,diagnosis\npics/0.png,a\n", "no column of paths among id, diagnosis: name it path or file"),
        ("path,label,class\npics/0.png,a,b\n", r"several columns of labels \(label, class\), expected one"),
        ("path,label,split\nmine.csv,a,train\n", "Line 2 .* names mine.csv, expected a picture"),
        ('path,label\n"pics/0.png,a\n', "is not a table in UTF-8"),
    ],
)
def test_read_wrong_table_names_the_line(text: str, message: str, table: Path) -> None:
    table.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load(table, "train")
    assert str(error.value).count(". ") == 0


def test_read_other_file_raises(table: Path) -> None:
    with pytest.raises(InputError, match=r"There is no file .*mine\.csv"):
        load(table, "train")
    table.write_bytes(b"pics/0.png,\xff\n")
    with pytest.raises(InputError, match="is not a table in UTF-8"):
        load(table, "train")
    table.unlink()
    os.mkfifo(table)
    with pytest.raises(InputError, match="pipe or device"):
        load(table, "train")
