"""The checkpoint and the log of a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch.optim.swa_utils import AveragedModel

from forefend.recipes.base import Trainable
from forefend.recipes.state import TrainState
from forefend.runtime.files import write_versioned
from forefend.runtime.folders import locked
from forefend.runtime.formatting import duration
from forefend.runtime.progress import Progress
from forefend.runtime.run_folder import Run
from forefend.training import checkpoint
from forefend.training.batches import Batches
from forefend.training.tracking import Pictures, Tracking


@dataclass(frozen=True)
class TrainingLog:
    """Saves and resumes a training run; without a run it only prints.

    Args:
        run: the folder of checkpoint and log; None for none.
        trainables: networks and optimizers.
        state: the state of the run.
        average: the average of the weights, if there is one.
        manifest: which training it is.
        batches: the batches, for their number.
        accelerator: device and processes; the main process writes, prints and tells the trackers.
        tracking: the trackers; None for none.
    """

    run: Run | None
    trainables: Mapping[str, Trainable]
    state: TrainState
    average: AveragedModel | None
    manifest: Mapping[str, Any]
    batches: Batches
    accelerator: Accelerator
    tracking: Tracking | None = None

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Hold the folder, load the checkpoint, if there is one, and start the trackers.

        Raises:
            InputError: another training writes to the folder, or the checkpoint cannot be resumed.
        """
        main = self.accelerator.is_main_process
        with locked(self.run.folder) if self.run and main else nullcontext():
            self._resume()
            with self.tracking.started(self.state.step) if self.tracking and main else nullcontext():
                yield

    def _resume(self) -> None:
        if self.run is None:
            return
        path, state, steps = self.run.checkpoint, self.state, self.batches.steps
        checkpoint.load(path, self.trainables, state, average=self.average, manifest=self.manifest)
        if self.accelerator.is_main_process:
            self.run.rewind(state.step)
            if state.step:
                rest = "nothing is left to do" if state.step >= steps else "resuming"
                print(f"{self.run.folder}: step {state.step} of {steps} is done, {rest}", flush=True)

    def save(self) -> None:
        """Write a checkpoint."""
        if self.run and self.accelerator.is_main_process:
            state = replace(self.state, threads=torch.get_num_threads())
            path = self.run.checkpoint
            checkpoint.save(path, self.trainables, state, average=self.average, manifest=self.manifest)

    def end_epoch(self, measured: Mapping[str, Mapping[str, Any]], progress: Progress) -> None:
        """Log the epoch's mean losses, its last learning rates, the monitor's and the held-out accuracies."""
        state, epoch = self.state, self.state.step // self.batches.per_epoch
        means = {name: total / count for name, (total, count) in state.losses.items()}
        state.losses.clear()
        if not self.accelerator.is_main_process:
            return
        if self.run:
            self.run.log(epoch=epoch, step=state.step, loss=means, lr=self._learning_rates(), **measured)
        words = ", ".join(f"{name} loss {mean:.4f}" for name, mean in means.items())
        words += "".join(f", {name} {share:.1%}" for name, share in measured.get("accuracy", {}).items())
        if held := measured.get("held_out"):
            words += f", robust on {held['images']} held-out images {held['robust']:.1%}"
        progress.note(words)
        progress.print(f"epoch {epoch}/{self.batches.epochs}: {words}, {duration(progress.remaining)} left")

    def track(self, pictures: Callable[[], Pictures]) -> None:
        """Tell the trackers of the epochs that the checkpoint holds."""
        if self.tracking and self.accelerator.is_main_process:
            self.tracking.tell(pictures)

    def _learning_rates(self) -> dict[str, float]:
        return {
            name: max(group["lr"] for group in trainable.optimizer.param_groups)
            for name, trainable in self.trainables.items()
        }

    def end(self) -> None:
        """Say which epoch was kept, and how it was chosen; also in the folder of the run."""
        best = self.state.best
        if not best or not self.accelerator.is_main_process:
            return
        if self.run:
            write_versioned(self.run.folder / "kept.json", {"kept": best})
        print(
            f"the weights of epoch {best['epoch']} of {self.batches.epochs} are kept: {best['robust']:.1%} robust, the "
            f"highest, on {best['images']} held-out training images under {best['attack']}",
            flush=True,
        )
