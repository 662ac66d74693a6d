from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import load, mnist

PIXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def encode(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, labels: list[int], suffix: str = ".gz") -> tuple[Path, Path]:
    images, y = folder / f"images{suffix}", folder / f"labels{suffix}"
    for path, array in ((images, PIXELS), (y, np.array(labels, np.uint8))):
        path.write_bytes(gzip.compress(encode(array)) if suffix else encode(array))
    return images, y


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_read_idx_returns_written_array(tmp_path: Path, suffix: str) -> None:
    images = mnist.read("fashion-mnist", "train", write(tmp_path, [9, 0], suffix))
    x, y, index = images.batch(torch.tensor([1, 0]))
    assert np.array_equal(x.mul(255).numpy().round(), PIXELS[::-1, None])
    assert (y.tolist(), index.tolist(), images.shape) == ([0, 9], [1, 0], (1, 3, 4))
    assert images.classes[9] == "Ankle boot"


def test_read_idx_of_truncated_gz_raises(tmp_path: Path) -> None:
    images, y = write(tmp_path, [9, 0])
    images.write_bytes(images.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"images\.gz is truncated or damaged"):
        mnist.read("mnist", "train", (images, y))


def test_read_idx_of_damaged_gz_raises(tmp_path: Path) -> None:
    images, y = write(tmp_path, [9, 0])
    content = bytearray(images.read_bytes())
    content[20] ^= 255
    for bad in (bytes(content), b"no gzip at all"):
        images.write_bytes(bad)
        with pytest.raises(InputError, match=r"images\.gz is truncated or damaged"):
            mnist.read("mnist", "train", (images, y))


def test_read_idx_of_other_file_raises(tmp_path: Path) -> None:
    images, y = write(tmp_path, [9, 0])
    with pytest.raises(InputError, match=r"labels\.gz is not an idx file of rank 3: it starts with 00 00 08 01"):
        mnist.read("mnist", "train", (y, images))
    images.write_bytes(gzip.compress(encode(PIXELS).replace(b"\x08\x03", b"\x09\x03", 1)))
    with pytest.raises(InputError, match="it starts with 00 00 09 03"):
        mnist.read("mnist", "train", (images, y))
    y.write_bytes(gzip.compress(b""))
    with pytest.raises(InputError, match="starts with nothing"):
        mnist.read_idx(y, rank=1)


@pytest.mark.parametrize("change", [lambda held: held[:-1], lambda held: held + b"!", lambda held: held[:6]])
def test_read_idx_of_wrong_length_raises(tmp_path: Path, change: object) -> None:
    images, y = write(tmp_path, [9, 0], suffix="")
    images.write_bytes(change(images.read_bytes()))
    with pytest.raises(InputError, match=r"expected 2 x 3 x 4|is not an idx file"):
        mnist.read("mnist", "train", (images, y))


def test_read_with_other_number_of_labels_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"2 images but labels\.gz holds 3 labels"):
        mnist.read("mnist", "train", write(tmp_path, [9, 0, 1]))


def test_read_with_label_out_of_range_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 … 10, expected 0 … 9"):
        mnist.read("mnist", "train", write(tmp_path, [10, 0]))


@pytest.mark.skipif("FOREFEND_DATA" not in os.environ, reason="FOREFEND_DATA does not say where the real files lie")
@pytest.mark.parametrize(
    ("name", "split", "count", "mean"),
    [
        ("mnist", "test", 10_000, 0.1325),
        ("mnist", "train", 60_000, 0.1307),
        ("fashion-mnist", "test", 10_000, 0.2868),
        ("fashion-mnist", "train", 60_000, 0.2860),
    ],
)
def test_published_files_match_known_facts(name: str, split: str, count: int, mean: float) -> None:
    images = load(name, split)
    assert (len(images), images.shape, len(images.classes)) == (count, (1, 28, 28), 10)
    assert images.pixels.dtype == torch.uint8
    assert images.pixels.nbytes == count * 784
    assert images.pixels.float().mean() / 255 == pytest.approx(mean, abs=1e-4)
    if name == "fashion-mnist":
        assert images.labels.bincount().tolist() == [count // 10] * 10
