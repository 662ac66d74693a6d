"""Every command of "Protect my classifier" runs, on small random networks of the real libraries."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.command_line import forefend
from helpers.onnx_files import write_linear
from helpers.small_budgets import SMALL_CHECKS, ask_little
from helpers.vision_libraries import vision_library
from torch import nn

from forefend.evaluation.gradient_masking import check

PAGE = Path(__file__).parents[2] / "docs/guides/protect-my-classifier.md"
CLASSES, SIZE = 4, 16
# Smaller networks of the same library, images and trainings than a user has.
SMALLER = {
    "timm:resnet18": "timm:test_resnet",
    "torchvision:resnet18": "torchvision:mobilenet_v3_small",
    "mobilenet_v3_small:mobile": "squeezenet1_1:mobile",
    "--size 224": "--size 32",
    "--images 500": "--images 6",
    "--images 100": "--images 6",
    "--epochs 10": "--epochs 1",
    "--epochs 4": "--epochs 1 --steps 1 --images 40 --preprocessor narrow-unet",
}


def section(title: str) -> list[str]:
    """The commands below a heading of the page."""
    text = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^forefend (.*)$", text, re.M)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `mine.npz`, and small budgets of the checks and of queries."""
    monkeypatch.setattr(check, "check", partial(check.check, budget=replace(SMALL_CHECKS, steps=4)))
    ask_little(monkeypatch)
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images = {f"x_{split}": rng.integers(0, 256, (40, 3, SIZE, SIZE), dtype=np.uint8) for split in ("train", "test")}
    labels = {f"y_{split}": np.arange(40) % CLASSES for split in ("train", "test")}
    np.savez("mine.npz", **images, **labels)
    return tmp_path


def run(title: str) -> str:
    """Run the commands of a section; each must succeed, but that random networks may fail a check."""
    shown = ""
    for line in section(title):
        for text, smaller in SMALLER.items():
            line = line.replace(text, smaller)
        answer = forefend(f"{line} --allow-weak-classifier")
        assert answer.code == 0 or (answer.code == 1 and line.startswith("check")), (line, answer.err)
        shown += answer.out
    return shown


def own_network() -> nn.Module:
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8 * (SIZE // 2) ** 2, CLASSES)
    return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), linear).eval()


def write_factory(folder: Path) -> None:
    (folder / "nets.py").write_text(
        "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), "
        f"nn.Flatten(), nn.Linear({8 * (SIZE // 2) ** 2}, {CLASSES}))\n"
    )


def write_timm(folder: Path) -> None:
    network = vision_library("timm").create_model("test_resnet", num_classes=CLASSES)
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, "timm.pth")


def write_torchvision(folder: Path) -> None:
    models = vision_library("torchvision.models")
    torch.save(models.mobilenet_v3_small(num_classes=CLASSES).state_dict(), "tv.pth")


def write_transformers(folder: Path) -> None:
    transformers, _ = vision_library("transformers"), vision_library("torchvision")
    transformers.utils.logging.disable_progress_bar()
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    config.num_labels = CLASSES
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained("my-vit")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained("my-vit")


def write_program(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own formats
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(own_network(), (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=shapes)
        torch.export.save(program, "net.pt2")


def write_onnx(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    weights = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, CLASSES)).astype(np.float32)
    write_linear(folder / "net.onnx", weights, ("batch", 3, SIZE, SIZE))


def write_photographs(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    models, rng = vision_library("torchvision.models"), np.random.default_rng(0)
    torch.save(models.squeezenet1_1(num_classes=2).state_dict(), "mobile.pth")
    sizes = [(224, 224), (300, 224), (224, 260), (180, 120)]
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            place = folder / "photos" / split / name
            place.mkdir(parents=True)
            for number, size in enumerate(sizes):
                coarse = image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                coarse.resize(size).save(place / f"{number}.jpg")


def test_a_network_of_your_own_runs(here: Path) -> None:
    write_factory(here)
    shown = run("A network of your own")
    assert "make (guide)  yes" in shown
    assert "3 × 16 × 16 pixels in [0, 1]" in shown


CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "timm": (write_timm, "timm (guide)"),
    "torchvision": (write_torchvision, "tv (guide)"),
    "transformers": (write_transformers, "my-vit (guide)"),
    "torch.export": (write_program, "net (guide)"),
    "ONNX": (write_onnx, "net (black box) (unseen)"),
    "A folder of photographs": (write_photographs, "mobile (guide)"),
}


@pytest.mark.slow  # seconds each: an import of a library, two trainings and two evaluations
@pytest.mark.parametrize("title", CASES)
def test_case_of_the_page_runs(title: str, here: Path) -> None:
    write, row = CASES[title]
    write(here)
    assert row in run(title)


def test_every_section_with_commands_is_run() -> None:
    titles = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    with_commands = {title for title in titles if section(title)}
    assert with_commands == {*CASES, "A network of your own"}
