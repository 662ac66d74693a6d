from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from forefend.checks import InputError
from forefend.data import ImageDataset, as_image_dataset, notices
from forefend.data.dataset import InMemoryDataset

Image = pytest.importorskip("PIL.Image")


class Pictures(Dataset[Any]):
    """Items made by a function of their number; `classes` as torchvision's sets have."""

    classes = ("cat", "dog", "eel")

    def __init__(self, item: Any, count: int = 5) -> None:
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Any:
        return self.item(row)


def paint(row: int, mode: str = "RGB", width: int = 8) -> Any:
    return Image.new(mode, (width, 6), 10 * row if mode == "L" else (10 * row,) * len(mode))


def values(images: ImageDataset) -> list[int]:
    return images.batch(torch.arange(len(images)))[0][:, 0, 0, 0].mul(255).round().int().tolist()


@pytest.mark.parametrize("wrap", [lambda set_: set_, lambda set_: DataLoader(set_, batch_size=2, shuffle=True)])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("CMYK", 3)])
def test_read_pillow_images(mode: str, channels: int, wrap: Any) -> None:
    images = as_image_dataset(wrap(Pictures(lambda row: (paint(row, mode), row % 3))))
    assert (images.shape, images.classes, images.labels.tolist()) == (
        (channels, 6, 8),
        Pictures.classes,
        [0, 1, 2, 0, 1],
    )
    if mode != "CMYK":
        assert values(images) == [0, 10, 20, 30, 40]


def test_read_pillow_images_leaves_them_unchanged() -> None:
    held = [paint(1), paint(2)]
    exif = Image.Exif()
    exif[0x0112] = 6
    held[0].info["exif"] = exif.tobytes()
    assert as_image_dataset(Pictures(lambda row: (held[row], row), 2), size=6).shape == (3, 6, 6)
    assert held[0].size == (8, 6)


def test_read_images_of_several_sizes_says_where_to_resize() -> None:
    mixed = Pictures(lambda row: (paint(row, width=8 + row), row % 3))
    with pytest.raises(
        InputError, match="such as 6x8 and 6x12, expected one size: resize them in its transform, or give"
    ):
        as_image_dataset(mixed)
    assert as_image_dataset(mixed, size=4, channels=1).shape == (1, 4, 4)
    with pytest.raises(InputError, match="such as 8x8 and 9x9"):
        as_image_dataset(
            [(torch.rand(1, n, n), 0) for n in (8, 9)] and Pictures(lambda n: (torch.rand(1, 8 + n, 8 + n), 0), 2)
        )


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "fine_label"), ("pixel_values", "labels")])
def test_read_dictionaries(image: str, label: str) -> None:
    set_ = Pictures(lambda row: {image: torch.full((1, 2, 2), row * 10, dtype=torch.uint8), label: row % 3})
    for given in (set_, DataLoader(set_, batch_size=2), DataLoader(Subset(set_, range(5)), batch_size=3)):
        images = as_image_dataset(given)
        assert (values(images), images.labels.tolist(), images.classes) == (
            [0, 10, 20, 30, 40],
            [0, 1, 2, 0, 1],
            Pictures.classes,
        )
    with pytest.raises(InputError, match="no column of labels among image, y: name it label or labels"):
        as_image_dataset(Pictures(lambda row: {"image": torch.rand(1, 2, 2), "y": 0}))
    with pytest.raises(InputError, match=r"several columns of images \(image, img\)"):
        as_image_dataset(Pictures(lambda row: {"image": torch.rand(1, 2, 2), "img": 1, "label": 0}))


def test_read_floats_of_8_bits_are_kept_as_bytes() -> None:
    x = torch.randint(0, 256, (100, 3, 4, 4), dtype=torch.uint8).float() / 255
    y = torch.arange(100) % 3
    images = as_image_dataset(TensorDataset(x, y))
    assert isinstance(images, InMemoryDataset)
    assert images.pixels.dtype == torch.uint8
    assert torch.equal(images.batch(torch.arange(100))[0], x)
    x[99, 0, 0, 0] = 0.3  # the last batch is not of bytes
    images = as_image_dataset(TensorDataset(x, y))
    assert isinstance(images, InMemoryDataset)
    assert images.pixels.dtype == torch.float32
    assert torch.equal(images.pixels, x)


def test_read_iterable_and_channels_last() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return ((np.full((4, 5, 3), row, np.uint8), row % 2) for row in range(7))

    for given in (Stream(), DataLoader(Stream(), batch_size=3)):
        images = as_image_dataset(given)
        assert (images.shape, values(images)) == ((3, 4, 5), list(range(7)))
    bits = np.random.RandomState(0).rand(4, 1, 3, 3) > 0.5
    assert np.array_equal(as_image_dataset((bits, np.arange(4))).batch(torch.arange(4))[0].numpy(), bits)


def test_read_says_and_refuses_what_memory_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = Pictures(lambda row: (torch.zeros(1, 1000, 1000, dtype=torch.uint8), row % 3), 65)
    monkeypatch.setattr("forefend.data.memory.SAID", 50e6)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 100e6}))
    notices.say.cache_clear()
    as_image_dataset(large)
    assert "The images of the Pictures take 0.1 GB of memory." in capsys.readouterr().out
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 70e6}))
    with pytest.raises(InputError, match=r"take 0\.1 GB of memory, and 0\.1 GB are available: give fewer, or a folder"):
        as_image_dataset(large)
