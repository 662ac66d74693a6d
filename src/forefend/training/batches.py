"""Batches: which images serve which step, and with what randomness: a function of the seed and the step alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from forefend.data import ImageDataset
from forefend.data.dataset import InMemoryDataset
from forefend.recipes.base import Batch, Memory, as_it_is
from forefend.runtime.rng import KeyedRNG
from forefend.training.growing import Sizes
from forefend.training.inner_attacks import AtLeast, InnerAttack, Moment

Augment = Callable[[Tensor, KeyedRNG], Tensor]
FALLEN = "watch/fallen"  # in memory once training has collapsed and gone over to the attack with several steps


@dataclass(frozen=True)
class Batches:
    """The batches of one training run.

    Args:
        data: training images.
        held: training images kept for validation; None for none.
        batch_size: images a step, over all processes.
        epochs: passes over the data.
        seed: of order, augmentation and attacks.
        augment: label-preserving change of a batch; None for none.
        inner: what stands in the place of the recipe's attack.
        sizes: which size the images of a step have.
        accelerator: device and processes.
    """

    data: ImageDataset
    held: ImageDataset | None
    batch_size: int
    epochs: int
    seed: int
    augment: Augment | None
    inner: InnerAttack
    sizes: Sizes
    accelerator: Accelerator

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.data) / self.batch_size)

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.epochs * self.per_epoch

    def at(self, step: int, memory: Memory) -> tuple[Batch, float]:
        """This process's images of a step, and the factor that makes the processes' mean the batch's mean."""
        epoch, place = divmod(step, self.per_epoch)
        # Batches of nearly equal size: no image is dropped, and none is left alone with BatchNorm.
        rows = self._order(epoch).tensor_split(self.per_epoch)[place]
        mine = rows.tensor_split(self.accelerator.num_processes)[self.accelerator.process_index]
        x, y, index = (tensor.to(self.accelerator.device) for tensor in self.data.batch(mine))
        rng, progress = KeyedRNG(index, self.seed, "train", step=step), step / self.steps

        def moved(x: Tensor) -> Tensor:
            return x if self.augment is None else self.augment(x, rng.fold_in(purpose="augment"))

        inner = AtLeast() if FALLEN in memory else self.inner
        moment = Moment(progress, epoch, mine, memory, moved)
        share = len(mine) * self.accelerator.num_processes / len(rows)
        x = self.sizes.resized(moved(x), progress)
        return Batch(x, y, index, progress, rng, lambda attack: inner(attack, moment)), share

    def held_out(self, step: int) -> Iterator[Batch]:
        """The held-out training images, as they are; every process looks at all of them, so that all decide alike."""
        assert self.held is not None
        for rows in torch.arange(len(self.held)).split(self.batch_size):
            x, y, index = (tensor.to(self.accelerator.device) for tensor in self.held.batch(rows))
            # The draw is the same at every epoch, so that epochs are compared under the same attack.
            yield Batch(x, y, index, step / self.steps, KeyedRNG(index, self.seed, "validate"), as_it_is)

    def few(self, count: int) -> Batch:
        """Some training images as they are, drawn with the seed: the same at every epoch and in every process."""
        number = KeyedRNG(torch.empty(0), self.seed, "few").integer()
        rows = torch.randperm(len(self.data), generator=torch.Generator().manual_seed(number))[:count]
        x, y, index = (tensor.to(self.accelerator.device) for tensor in self.data.batch(rows))
        return Batch(x, y, index, 0.0, KeyedRNG(index, self.seed, "few"))

    def _order(self, epoch: int) -> Tensor:
        number = KeyedRNG(torch.empty(0), self.seed, "order", step=epoch).integer()
        return torch.randperm(len(self.data), generator=torch.Generator().manual_seed(number))


def at_hand(images: ImageDataset, device: torch.device) -> ImageDataset:
    """The images with their pixels on the training device, if it is an accelerator with memory enough; else as given.

    Args:
        images: only those in memory are moved, in the form they are stored in; labels and numbers stay where they are.
        device: where training takes place.
    """
    if device.type != "cuda" or not isinstance(images, InMemoryDataset):
        return images
    return moved_to(device, images, torch.cuda.mem_get_info(device)[0])


def moved_to(device: torch.device, images: InMemoryDataset, free: int) -> InMemoryDataset:
    """The images with their pixels on a device, if they fit in a quarter of its `free` bytes; else as given."""
    return replace(images, pixels=images.pixels.to(device)) if 4 * images.pixels.nbytes <= free else images
