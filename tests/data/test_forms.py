"""The same photographs in every form are the same images, with the same labels and names of classes."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import done
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from forefend.data import ImageDataset, as_image_dataset, load, sample
from forefend.evaluation.results import load as load_results

Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.skipif(
    "FOREFEND_DATA" not in os.environ, reason="FOREFEND_DATA does not say where the real files lie"
)


@pytest.fixture(scope="module")
def photographs() -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Forty test images of CIFAR-10 in the order of their classes, uint8, with labels and names."""
    images = sample(load("cifar-10", "test"), 40, seed=0)
    rows = images.labels.argsort(stable=True)
    x, y, _ = images.batch(rows)
    return (x * 255).round().to(torch.uint8), y, tuple(sorted(images.classes))


def pictures(x: Tensor) -> list[Any]:
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in x]


def folder(at: Path, x: Tensor, y: Tensor, names: tuple[str, ...]) -> Any:
    for row, (picture, label) in enumerate(zip(pictures(x), y.tolist(), strict=True)):
        (at / "set/test" / names[label]).mkdir(parents=True, exist_ok=True)
        picture.save(at / "set/test" / names[label] / f"{row:02}.png")
    return str(at / "set")


def table(at: Path, x: Tensor, y: Tensor, names: tuple[str, ...]) -> Any:
    with (at / "set.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for row, (picture, label) in enumerate(zip(pictures(x), y.tolist(), strict=True)):
            picture.save(at / f"{row}.bmp")
            writer.writerow([f"{row}.bmp", names[label], "test"])
    return str(at / "set.csv")


def archive(at: Path, x: Tensor, y: Tensor, names: tuple[str, ...]) -> Any:
    np.savez(at / "set.npz", test_images=x.permute(0, 2, 3, 1).numpy(), test_labels=y.numpy(), classes=names)
    return str(at / "set.npz")


def hugging_face(at: Path, x: Tensor, y: Tensor, names: tuple[str, ...]) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    made = datasets.Dataset.from_dict({"img": pictures(x), "label": y.tolist()}, features=features)
    datasets.DatasetDict({"test": made}).save_to_disk(at / "set")
    return str(at / "set")


def torch_dataset(at: Path, x: Tensor, y: Tensor, names: tuple[str, ...]) -> Any:
    class Pairs(Dataset[Any]):
        classes = names

        def __len__(self) -> int:
            return len(y)

        def __getitem__(self, row: int) -> Any:
            return pictures(x[row : row + 1])[0], int(y[row])

    return Pairs()


def loader(at: Path, x: Tensor, y: Tensor, names: tuple[str, ...]) -> Any:
    return DataLoader(torch_dataset(at, x, y, names), batch_size=7, shuffle=True)


FORMS = [folder, table, archive, hugging_face, torch_dataset, loader]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form: Callable[..., Any], photographs: Any, tmp_path: Path) -> None:
    x, y, names = photographs
    given = form(tmp_path, *photographs)
    images: ImageDataset = load(given, "test") if isinstance(given, str) else as_image_dataset(given)
    shown, labels, index = images.batch(torch.arange(len(images)))
    assert torch.equal(shown, x.float() / 255)
    assert (labels.tolist(), images.classes, index.tolist()) == (y.tolist(), names, list(range(40)))


def test_evaluate_command_gives_one_accuracy_for_table_and_hugging_face(
    photographs: Any, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = f"resnet20:{real_data}/classifiers/akamaster-cifar10-resnet20.th"
    line = f"evaluate --classifiers {weights} --mean .485 .456 .406 --std .229 .224 .225 --threat Linf:1/255"
    found = []
    for form in (table, hugging_face):
        (tmp_path / form.__name__).mkdir()
        given = form(tmp_path / form.__name__, *photographs)
        done(f"{line} --data {given} --suite curve --steps 1 --restarts 1 --out {form.__name__}/out")
        found.append([(result.attack, result.accuracy) for result in load_results(tmp_path / form.__name__ / "out")])
    assert found[0][0][1] > 0.8
    assert all(each == found[0] for each in found)
