"""MMA in two processes (`torchrun margins.py FOLDER`): each sees half the images, and all must remember all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from accelerate import Accelerator
from helpers.torchrun import fail_unless_parted
from helpers.toy_networks import toy_cast, toy_images, with_roles_of
from safetensors.torch import save_file
from torch import Tensor

from forefend.recipes import MMA
from forefend.recipes.base import Networks
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.runtime.signals import Interrupted
from forefend.threat_models.lp import Linf
from forefend.training.trainer import fit

KEPT: dict[str, Tensor] = {}


class Remembering(MMA):
    """MMA that keeps its state when training ends."""

    def on_train_end(self, networks: Networks, state: TrainState) -> None:
        KEPT.update({name: tensor.clone() for name, tensor in state.per_image.items()})


RECIPE = Remembering(threat=Linf(0.3), steps=4, epochs=6, batch_size=14)


def radii(accelerator: Accelerator) -> Tensor:
    """Every image's radius after six epochs of three steps."""
    fit(RECIPE, toy_images(), with_roles_of(RECIPE, toy_cast(batch_norm=False)), accelerator=accelerator)
    return KEPT["radius"]


def stopped(folder: Path, accelerator: Accelerator) -> Tensor:
    """The same, asked to stop in the middle of the fifth epoch and taken up again."""

    def ask(x: Tensor, rng: KeyedRNG) -> Tensor:
        if rng.step == 13:
            os.kill(os.getpid(), signal.SIGTERM)
        return x

    with contextlib.suppress(Interrupted):
        networks = with_roles_of(RECIPE, toy_cast(batch_norm=False))
        fit(RECIPE, toy_images(), networks, accelerator=accelerator, run=Run(folder), augment=ask)
        raise RuntimeError("training did not stop")
    accelerator.wait_for_everyone()
    networks = with_roles_of(RECIPE, toy_cast(batch_norm=False))
    fit(RECIPE, toy_images(), networks, accelerator=accelerator, run=Run(folder))
    return KEPT["radius"]


def main(folder: Path) -> None:
    """What one of two processes does."""
    accelerator = Accelerator(cpu=True)
    tensors = {"radius": radii(accelerator).clone(), "stopped": stopped(folder, accelerator).clone()}
    save_file(tensors, folder / f"{accelerator.process_index}.safetensors")


if __name__ == "__main__":
    fail_unless_parted()
    main(Path(sys.argv[1]))
