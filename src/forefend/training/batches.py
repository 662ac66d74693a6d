"""The images and the randomness of each training step, as functions of the seed and the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from forefend.data import ImageDataset
from forefend.data.dataset import InMemoryDataset
from forefend.recipes.base import Batch
from forefend.runtime.rng import KeyedRNG

Augment = Callable[[Tensor, KeyedRNG], Tensor]


@dataclass(frozen=True)
class Batches:
    """The batches of one training run.

    Args:
        data: training images.
        batch_size: images a step, over all processes.
        epochs: passes over the data.
        seed: seed of order, augmentation and attacks.
        augment: label-preserving change of a batch; None for none.
        accelerator: device and processes.
    """

    data: ImageDataset
    batch_size: int
    epochs: int
    seed: int
    augment: Augment | None
    accelerator: Accelerator

    @property
    def per_epoch(self) -> int:
        """Number of steps of an epoch."""
        return math.ceil(len(self.data) / self.batch_size)

    @property
    def steps(self) -> int:
        """Number of steps of the training."""
        return self.epochs * self.per_epoch

    def at(self, step: int) -> tuple[Batch, float]:
        """This process's images of a step, and the factor that makes the mean over processes that over the batch."""
        epoch, position = divmod(step, self.per_epoch)
        # Batches of nearly equal size: every image is used, and BatchNorm never sees a single one.
        rows = self._order(epoch).tensor_split(self.per_epoch)[position]
        own = rows.tensor_split(self.accelerator.num_processes)[self.accelerator.process_index]
        x, y, index = self._load(self.data, own)
        rng = KeyedRNG(index, self.seed, "train", step=step)

        def augment(x: Tensor) -> Tensor:
            return x if self.augment is None else self.augment(x, rng.fold_in(purpose="augment"))

        share = len(own) * self.accelerator.num_processes / len(rows)
        return Batch(augment(x), y, index, step / self.steps, rng, epoch, own, augment), share

    def held_out(self, images: ImageDataset, step: int) -> Iterator[Batch]:
        """Held-out images, not augmented; every process evaluates all of them, so that all decide alike."""
        for rows in torch.arange(len(images)).split(self.batch_size):
            x, y, index = self._load(images, rows)
            # The random numbers are the same at every epoch, so that epochs are compared under the same attack.
            yield Batch(x, y, index, step / self.steps, KeyedRNG(index, self.seed, "validate"))

    def few(self, count: int) -> Batch:
        """A random sample of training images, not augmented, the same at every epoch and in every process."""
        x, y, index = self._load(self.data, self._permutation("few")[:count])
        return Batch(x, y, index, 0.0, KeyedRNG(index, self.seed, "few"))

    def _load(self, images: ImageDataset, rows: Tensor) -> list[Tensor]:
        return [tensor.to(self.accelerator.device) for tensor in images.batch(rows)]

    def _order(self, epoch: int) -> Tensor:
        return self._permutation("order", step=epoch)

    def _permutation(self, trial: str, *, step: int = 0) -> Tensor:
        number = KeyedRNG(torch.empty(0), self.seed, trial, step=step).integer()
        return torch.randperm(len(self.data), generator=torch.Generator().manual_seed(number))


def to_accelerator(images: ImageDataset, device: torch.device) -> ImageDataset:
    """Move the pixels of images in memory to a CUDA device if it has room for them; labels and numbers stay."""
    if device.type != "cuda" or not isinstance(images, InMemoryDataset):
        return images
    return moved_to(device, images, torch.cuda.mem_get_info(device)[0])


def moved_to(device: torch.device, images: InMemoryDataset, free: int) -> InMemoryDataset:
    """Move the pixels to a device if they take at most a quarter of its `free` bytes."""
    return replace(images, pixels=images.pixels.to(device)) if 4 * images.pixels.nbytes <= free else images
