"""Where the pixels lie from which batches are made: beside the networks where there is room, and no number differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import same, toy_cast, toy_images, train, trained

from forefend.data.dataset import InMemoryDataset
from forefend.data.image_folder import read as read_folder
from forefend.recipes import RTFE, Robustifier
from forefend.runtime.distributed import accelerator_on
from forefend.threat_models.lp import Linf
from forefend.training import batches, trainer
from forefend.training.batches import moved_to, to_accelerator
from forefend.training.trainer import fit

CPU, CUDA, ELSEWHERE = torch.device("cpu"), torch.device("cuda"), torch.device("meta")


def levels() -> InMemoryDataset:
    """Every 8-bit level, one image each."""
    pixels = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    return InMemoryDataset(
        "levels", "train", pixels, torch.zeros(256, dtype=torch.int64), 7 + torch.arange(256), ("a",)
    )


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Any]:
    """Let CUDA say that it has so many bytes left; what is asked for comes back."""
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(device) or (free, 10**12))
    return asked


def test_pixels_of_8_bits_are_divided_exactly() -> None:
    x, _, _ = levels().batch(torch.arange(256))
    assert x.flatten().tolist() == [float(torch.tensor(level / 255)) for level in range(256)]


@pytest.mark.parametrize(("free", "moved"), [(4 * 256, True), (4 * 256 - 1, False)])
def test_moved_to_requires_four_times_the_memory(free: int, moved: bool) -> None:
    images = levels()
    there = moved_to(ELSEWHERE, images, free)
    assert (there.pixels.device == ELSEWHERE) == moved
    assert (there is images) != moved
    assert (there.labels.device, there.index.device, images.pixels.device) == (CPU, CPU, CPU)
    x, y, index = there.batch(torch.tensor([3, 250]))  # rows on the CPU, pixels elsewhere
    assert (tuple(x.shape), x.dtype, x.device) == ((2, 1, 1, 1), torch.float32, there.pixels.device)
    assert (y.tolist(), index.tolist()) == ([0, 0], [10, 257])


def test_to_accelerator_on_cpu_returns_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, images = room(monkeypatch, 10**12), levels()
    assert to_accelerator(images, CPU) is images
    assert not asked


def test_to_accelerator_on_cuda_uses_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, images = room(monkeypatch, 4 * 256 - 1), levels()
    assert to_accelerator(images, CUDA) is images
    assert asked == [CUDA]
    seen: list[Any] = []
    monkeypatch.setattr(batches, "moved_to", lambda *arguments: seen.append(arguments) or arguments[1])
    to_accelerator(images, CUDA)
    assert seen == [(CUDA, images, 4 * 256 - 1)]


def test_to_accelerator_of_files_returns_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, image = room(monkeypatch, 10**12), pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name in ("train/a", "train/b"):
        (tmp_path / name).mkdir(parents=True)
        image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    images = read_folder(tmp_path, "train", size=4)
    assert to_accelerator(images, CUDA) is images
    assert not asked


def test_fit_with_moved_pixels_gives_the_same_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = Robustifier(Linf(0.1), steps=1, epochs=2, batch_size=16, hold_out=0.25)
    plain, near = trained(train(recipe, toy_images(), toy_cast())), []

    def at_once(images: InMemoryDataset, device: torch.device) -> InMemoryDataset:
        near.append((len(images), device.type))
        return moved_to(device, images, 10**9)

    monkeypatch.setattr(trainer, "to_accelerator", at_once)
    assert same(trained(train(recipe, toy_images(), toy_cast())), plain)
    assert near == [(30, "cpu"), (10, "cpu")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_fit_on_cuda_with_moved_pixels_gives_close_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    near, rows = to_accelerator(levels(), CUDA), torch.arange(256)
    assert near.batch(rows)[0].is_cuda
    assert torch.equal(near.batch(rows)[0].cpu(), levels().batch(rows)[0])
    casts, recipe = [toy_cast(), toy_cast()], RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)
    fit(recipe, toy_images(), casts[0], accelerator=accelerator_on())
    monkeypatch.setattr(trainer, "to_accelerator", lambda images, device: images)
    fit(recipe, toy_images(), casts[1], accelerator=accelerator_on())
    for a, b in zip(trained(casts[0]), trained(casts[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)  # a GPU adds up in any order
