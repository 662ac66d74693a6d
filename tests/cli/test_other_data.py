"""A defense of one data set in front of classifiers of another, as in RTFE's table 3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import done, guide, refused
from helpers.vision_libraries import vision_library

from forefend import data
from forefend.evaluation.results import load

EVALUATE = "--images 20 --suite curve --threat Linf:0.1 --processes 1 --allow-weak-classifier"


def larger_digits(path: Path, channels: int) -> None:
    """Write digits of twice the size, of five classes."""
    content = {}
    for split in ("train", "test"):
        images = data.load("digits", split)
        x, y, _ = images.batch((images.labels < 5).nonzero().flatten()[:200])
        pixels = (x.repeat_interleave(2, 2).repeat_interleave(2, 3) * 255).round().to(dtype=x.dtype).numpy()
        content |= {f"x_{split}": np.repeat(pixels, channels, 1).transpose(0, 2, 3, 1).astype("uint8")}
        content |= {f"y_{split}": y.numpy()}
    np.savez(path, **content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits, other images and a classifier of them."""
    folder = tmp_path_factory.mktemp("trained")
    done(f"train rtfe --data digits --epochs 1 --images 60 --steps 1 --guides {guide()} --out {folder}/run")
    larger_digits(folder / "other.npz", 1)
    larger_digits(folder / "colors.npz", 3)
    done(f"train natural --data {folder}/other.npz --classifier mlp --epochs 2 --out {folder}/theirs")
    return folder


def test_classifiers_of_other_data_are_judged_alone(trained: Path, tmp_path: Path) -> None:
    line = f"evaluate {trained}/run --data {trained}/other.npz --classifiers {trained}/theirs {EVALUATE}"
    done(f"{line} --out {tmp_path}/e")
    found = load(tmp_path / "e")
    assert {(c.classifier, c.seen, c.defended) for c in found} == {("theirs", False, d) for d in (False, True)}
    again = f"evaluate {trained}/run --data digits --classifiers {guide()} {EVALUATE}"
    assert f"{guide().name} (guide)" in done(f"{again} --out {tmp_path}/own")


def test_guides_that_do_not_classify_other_data_are_named(trained: Path) -> None:
    told = refused(f"evaluate {trained}/run --data {trained}/other.npz {EVALUATE}")
    assert f"The guide {guide().name} of this run does not classify the images of other: name classifiers" in told


def test_guides_that_do_not_load_for_other_data_are_not_called_missing(trained: Path) -> None:
    network = vision_library("timm").create_model("test_resnet", num_classes=10, in_chans=1)
    torch.save(network.state_dict(), trained / "w.pth")
    weights = f"--guides timm:test_resnet:{trained}/w.pth --mean 0.5 --std 0.5 --allow-weak-classifier"
    done(f"train rtfe --data digits --epochs 1 --images 60 --steps 1 {weights} --out {trained}/weights")
    with np.load(trained / "other.npz") as other:
        np.savez(trained / "named.npz", **other, classes=list("01234"))
    told = refused(f"evaluate {trained}/weights --data {trained}/named.npz {EVALUATE}")
    assert "No guide of this run can be used on the images of named, another data set than" in told


@pytest.mark.parametrize("command", ["evaluate", "check", "certify", "corruptions"])
def test_images_with_other_channels_than_the_defense_are_refused(trained: Path, command: str) -> None:
    told = refused(f"{command} {trained}/run --data {trained}/colors.npz --classifiers mlp --images 20")
    assert told == (
        "The defense was trained for images of 1 channels, and those of colors have 3: choose a data set with 1, or "
        "read pictures from a folder with that number."
    )
