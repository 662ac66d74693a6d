"""Every work that writes into a folder refuses one that another process holds, and leaves it as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from helpers.command_line import files, held_by_another
from helpers.toy_networks import toy_cast, toy_images, trained_classifier
from torch import nn

import forefend as ff
from forefend.checks import InputError

IMAGES = toy_images(24, seed=1, split="test")


def defense() -> ff.Defense:
    return ff.Defense(
        ff.preprocessors.build("identity", channels=1), ff.DefenseCard("identity", {"channels": 1})
    ).eval()


def train(network: nn.Module, folder: Path) -> Any:
    cast = ff.Networks(classifier=toy_cast().classifier)
    return ff.fit(ff.recipes.Natural(epochs=1), IMAGES, cast, run=folder, accelerator=Accelerator(cpu=True))


WORK: dict[str, Callable[[nn.Module, Path], Any]] = {
    "fit": train,
    "evaluate": lambda network, folder: ff.evaluate(network, IMAGES, [], folder=folder),
    "check": lambda network, folder: ff.check(network, IMAGES, "Linf:0.02", folder=folder),
    "certify": lambda network, folder: ff.certify(network, IMAGES, n=10, n0=2, folder=folder),
    "corruptions": lambda network, folder: ff.corruptions(
        network, IMAGES, corruptions=["brightness"], severities=[1], folder=folder
    ),
    "transfer": lambda network, folder: ff.transfer(
        defense(), {"net": network}, IMAGES, threat="Linf:0.02", attacks=["fgsm"], folder=folder
    ),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_folder_that_another_process_holds_is_refused(work: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with held_by_another(folder):
        with pytest.raises(InputError, match=rf"^Another process writes to {folder}: wait until it ends"):
            work(trained_classifier(), folder)
        assert files(folder) == []
