"""Trainings that run in processes of their own: to be killed, or to be two at once (`torchrun trainee.py FOLDER`)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from helpers.told_tracker import ToldTracker
from helpers.torchrun import fail_unless_parted
from helpers.toy_networks import toy_cast, toy_images, train, with_roles_of
from safetensors.torch import save_file
from torch import Tensor

from forefend.recipes import RTFE, Adversarial
from forefend.recipes.base import Networks
from forefend.runtime.distributed import accelerator_on
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.runtime.signals import Interrupted
from forefend.threat_models.lp import Linf
from forefend.training.config import TrainingConfig
from forefend.training.inner_attacks import FGSMPGI
from forefend.training.trainer import fit

RECIPE = RTFE(Linf(0.1), steps=1, epochs=4, batch_size=4)
PAIR = Adversarial(Linf(0.1), steps=2, epochs=2, batch_size=14)


def slow_run(folder: Path) -> None:
    """Thirty-six steps of at least five milliseconds, a checkpoint after each; then the weights in `weights.pt`.

    They are those of the best epoch of an average.
    """

    def wait(x: Tensor, rng: object) -> Tensor:
        time.sleep(0.005)
        return x

    torch.set_num_threads(1)
    options = {"ema": 0.9, "ema_statistics": 2, "keep_best": 0.1}
    networks = train(RECIPE, toy_images(), toy_cast(), run=Run(folder), augment=wait, checkpoint_every=0.0, **options)
    torch.save(networks.preprocessor.state_dict(), folder / "weights.pt")


def pair(*, batch_norm: bool, accelerator: Accelerator, off: int = 0) -> Networks:
    """Six steps on forty images in batches of thirteen and fourteen, which two processes cannot halve evenly.

    All but the first begin with weights that are `off`.
    """
    networks = with_roles_of(PAIR, toy_cast(batch_norm=batch_norm))
    with torch.no_grad():
        for tensor in (*networks.classifier.parameters(), *networks.classifier.buffers()):
            tensor += off * accelerator.process_index
    fit(PAIR, toy_images(), networks, accelerator=accelerator)
    return networks


def stopped(folder: Path, accelerator: Accelerator) -> Networks:
    """The same without BatchNorm; the second process alone is asked to stop at the fourth step, and all go on later."""

    def ask(x: Tensor, rng: KeyedRNG) -> Tensor:
        if accelerator.process_index == 1 and rng.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return x

    told = ToldTracker(folder / f"told-{accelerator.process_index}")
    with contextlib.suppress(Interrupted):
        networks = with_roles_of(PAIR, toy_cast(batch_norm=False))
        fit(PAIR, toy_images(), networks, accelerator=accelerator, run=Run(folder), augment=ask, track=told)
        raise RuntimeError("training did not stop")
    accelerator.wait_for_everyone()
    networks = with_roles_of(PAIR, toy_cast(batch_norm=False))
    fit(PAIR, toy_images(), networks, accelerator=accelerator, run=Run(folder), track=told)
    return networks


def best(accelerator: Accelerator) -> Networks:
    """The best epoch of an average whose statistics are estimated anew, with perturbations that are reused."""
    networks = with_roles_of(PAIR, toy_cast())
    options = TrainingConfig(ema=0.9, ema_statistics=2, keep_best=0.2, inner_attack=FGSMPGI())
    fit(PAIR, toy_images(), networks, accelerator=accelerator, config=options)
    return networks


def main(folder: Path) -> None:
    """What one of two processes does: train both networks, and one with a stop; write down what came out."""
    accelerator = accelerator_on()
    casts = {
        "plain": pair(batch_norm=False, accelerator=accelerator),
        "batchnorm": pair(batch_norm=True, accelerator=accelerator),
        "apart": pair(batch_norm=True, accelerator=accelerator, off=3),
        "stopped": stopped(folder, accelerator),
        "best": best(accelerator),
    }
    for name, networks in casts.items():
        save_file(networks.classifier.state_dict(), folder / f"{name}-{accelerator.process_index}.safetensors")


if __name__ == "__main__":
    fail_unless_parted()
    main(Path(sys.argv[1]))
