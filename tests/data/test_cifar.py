from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from forefend.checks import InputError
from forefend.data import cifar, load

PIXELS = np.random.RandomState(0).randint(0, 256, (3, 3072), dtype=np.uint8)


def python2(pixels: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    """Return a batch with the opcodes of the published ones: byte strings, protocol 2, old numpy."""

    def text(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR("
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR("
    dtype += number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array += number(1) + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key) + listed + b"u."


def write(folder: Path, content: bytes) -> Path:
    path = folder / "batch"
    path.write_bytes(content)
    return path


def test_read_published_batch_returns_images(tmp_path: Path) -> None:
    images = cifar.read("cifar-10", "test", [write(tmp_path, python2(PIXELS, [9, 0, 3]))])
    x, y, index = images.batch(torch.arange(3))
    assert np.array_equal(images.pixels.numpy(), PIXELS.reshape(3, 3, 32, 32))
    assert torch.equal(x, images.pixels / 255)
    assert ([images.classes[k] for k in y], index.tolist()) == (["truck", "airplane", "cat"], [0, 1, 2])


@pytest.mark.parametrize("key", [b"data", "data"])
def test_read_batch_of_current_numpy_returns_images(tmp_path: Path, key: object) -> None:
    for pixels in (PIXELS, np.asfortranarray(PIXELS)):
        path = write(tmp_path, pickle.dumps({key: pixels, "fine_labels": [99, 0, 1]}, protocol=4))
        images = cifar.read("cifar-100", "train", [path])
        assert np.array_equal(images.pixels.flatten(1).numpy(), PIXELS)
        assert images.classes[99] == "worm"


def test_read_joins_batches_in_order(tmp_path: Path) -> None:
    path = write(tmp_path, python2(PIXELS, [9, 0, 3]))
    images = cifar.read("cifar-10", "train", [path, path])
    assert images.index.tolist() == list(range(6))
    assert torch.equal(images.pixels[3:], images.pixels[:3])
    assert images.labels.tolist() == [9, 0, 3] * 2


class Malice:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


def test_read_batch_with_command_raises_without_running(tmp_path: Path) -> None:
    for protocol in range(6):
        path = write(tmp_path, pickle.dumps({"data": Malice(tmp_path / "ran"), "labels": [0]}, protocol))
        with pytest.raises(InputError, match=r"batch is not a CIFAR batch: it refers to posix\.system"):
            cifar.read("cifar-10", "test", [path])
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists(), "the pickle does run elsewhere"


@pytest.mark.parametrize(
    "name", ["numpy.core.multiarray\nfromfile", "numpy\nload", "builtins\neval", "numpy\nndarray.x"]
)
def test_read_batch_with_other_names_raises(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"refers to {name.replace(chr(10), '.')}"):
        cifar.read_batch(write(tmp_path, f"c{name}\n.".encode()), "labels")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02}q",
        b"\x89PNG\r\n",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": 1, "labels": [1]}),
        pickle.dumps({"data": PIXELS, "fine_labels": [0, 1, 2]}, 4),
        pickle.dumps({"data": PIXELS, "labels": [0, 1]}, 4),
        pickle.dumps({"data": PIXELS, "labels": [0, 1, 2.5]}, 4),
        pickle.dumps({"data": PIXELS[:, :-1], "labels": [0, 1, 2]}, 4),
        pickle.dumps({"data": PIXELS.astype(np.int64), "labels": [0, 1, 2]}, 4),
        pickle.dumps({"data": PIXELS.view(np.int8), "labels": [0, 1, 2]}, 4),
        pickle.dumps({"data": PIXELS.astype(object), "labels": [0, 1, 2]}, 4),
        b"\x80\x02cnumpy\nndarray\n)\x81}b.",
    ],
)
def test_read_batch_of_other_content_raises(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError, match="batch is not a CIFAR batch"):
        cifar.read_batch(write(tmp_path, content), "labels")


def test_read_with_label_out_of_range_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 … 10, expected 0 … 9"):
        cifar.read("cifar-10", "test", [write(tmp_path, python2(PIXELS, [9, 0, 10]))])


def test_cifar100_has_100_sorted_classes() -> None:
    assert len(set(cifar.CIFAR100)) == 100
    assert list(cifar.CIFAR100) == sorted(cifar.CIFAR100)


@pytest.mark.skipif("FOREFEND_DATA" not in os.environ, reason="FOREFEND_DATA does not say where the real files lie")
@pytest.mark.parametrize(
    ("split", "count", "means"),
    [("test", 10_000, (0.4942, 0.4851, 0.4504)), ("train", 50_000, (0.4914, 0.4822, 0.4465))],
)
def test_published_files_match_known_facts(split: str, count: int, means: tuple[float, ...]) -> None:
    images = load("cifar-10", split)
    assert images.labels.bincount().tolist() == [count // 10] * 10
    assert images.pixels.dtype == torch.uint8
    assert images.pixels.nbytes == count * 3072
    measured = [images.pixels[:, channel].float().mean().item() / 255 for channel in range(3)]
    assert measured == pytest.approx(means, abs=1e-4)
