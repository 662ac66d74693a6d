"""The parts of a training run, and what it does in a step and after an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.models.defended import pipelines
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, no_attack
from forefend.recipes.state import TrainState
from forefend.training import best_epoch
from forefend.training.batches import Batches
from forefend.training.config import TrainingConfig
from forefend.training.crafting import CraftingView
from forefend.training.ema import average_loaded, estimated_anew, has_statistics, load_average, trained_networks
from forefend.training.inner_attacks import AtLeast
from forefend.training.sanity import check_trained


@dataclass
class Loop:
    """The parts of a training run."""

    recipe: Recipe
    config: TrainingConfig
    batches: Batches
    held: ImageDataset | None  # training images of the recipe's validation
    judging: ImageDataset | None  # training images that choose the best epoch
    trainables: dict[str, Trainable]
    accelerator: Accelerator
    evaluated: Networks  # frozen views for validation
    view: CraftingView
    few: Tensor  # images
    average: AveragedModel | None
    state: TrainState
    before: dict[str, Tensor] = field(default_factory=dict)  # tensors of images at the last merge

    def __post_init__(self) -> None:
        self.trained = trained_networks(self.trainables.values())
        self.monitor = self.config.monitor_for(self.recipe)

    def step(self, train: Networks) -> None:
        """Take one step: the recipe yields losses, and each trainable is updated in turn.

        Raises:
            InputError: a loss or an attack is not finite, or training has destroyed the weights.
        """
        try:
            self._step(train)
        except InputError:  # an attack blames the classifier for what training made of the preprocessor
            check_trained(self.trained, self.evaluated, self.few, self.state.step)
            raise

    def _step(self, train: Networks) -> None:
        state = self.state
        if self.accelerator.num_processes > 1 and not self.before:
            self.before = {name: tensor.clone() for name, tensor in self._image_tensors().items()}
        batch, share = self.batches.at(state.step)
        for name, loss in self._losses(train, batch, state):
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(f"The loss of the {name} is {value} at step {state.step}: lower lr.")
            self._update(self.trainables[name], loss * share, batch.progress)
            total, count = state.losses.get(name, (0.0, 0))
            state.losses[name] = [total + value, count + 1]
        if self.average:
            self.average.update_parameters(self.trained)
        state.step += 1

    def merge(self) -> None:
        """Give every process the changes that each has made to the tensors of its images."""
        for name, tensor in self._image_tensors().items() if self.before else ():
            old = self.before[name]
            # Accelerators exchange only tensors on their device.
            change = self.accelerator.reduce((tensor - old).to(self.accelerator.device), reduction="sum")
            tensor.copy_(old + change.to(old.device))
        self.before = {}

    def end_epoch(self, train: Networks) -> dict[str, dict[str, Any]]:
        """Merge, validate, and return what was measured: the monitor's accuracies and those on held-out images."""
        self.merge()
        attack, state, measured = self.recipe.inner_attack(), self.state, dict[str, dict[str, Any]]()
        if self.held is None and self.judging is None and self.monitor is None:
            return measured
        with average_loaded(self.average, self.trained):
            self._estimate_statistics(train)
            if self.held is not None:
                self.recipe.validate(self.evaluated, self.batches.held_out(self.held, state.step), state)
            if self.judging is not None and attack is not None:
                images = self.batches.held_out(self.judging, state.step)
                measured["held_out"] = best_epoch.judged(_pipelines(self.evaluated), attack.threat, images)
                best_epoch.keep(state, measured["held_out"], self.trained, state.step // self.batches.per_epoch)
            if self.monitor is not None and attack is not None:
                few = self.batches.few(self.monitor.images)
                measured["accuracy"] = self.monitor.measure(self.evaluated, attack.threat, few)
        return measured

    def finish(self, train: Networks) -> None:
        """Load the weights that are the result: those of the best epoch, the average, or the last ones."""
        if self.judging is not None:
            self.trained.load_state_dict(self.state.best_weights)
        elif self.average:
            load_average(self.average, self.trained)
            self._estimate_statistics(train)

    def any_process(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process, so that all processes act after the same step."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        given = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [bool(flag) for flag in self.accelerator.reduce(given, reduction="sum")]

    def _losses(self, train: Networks, batch: Batch, state: TrainState) -> Steps:
        """Yield the losses of one step of the recipe, with what the inner attack adds."""
        # Dropout uses torch's own generator: seeded by step, it needs no state in checkpoints.
        torch.manual_seed(batch.rng.fold_in(purpose="torch", restart=self.accelerator.process_index).integer())
        for network in self.trained:
            network.train()
        published = self.recipe.inner_attack()
        inner = AtLeast() if state.fallen_back else self.config.inner_attack
        attack = no_attack if published is None else inner(published, batch, state)
        for name, loss in self.recipe.training_step(train, self.view.refresh(), batch, attack, state):
            penalty = inner.penalty(attack, _pipelines(train))
            yield name, loss if penalty is None else loss + penalty

    @torch.no_grad()
    def _estimate_statistics(self, train: Networks) -> None:
        """Estimate the BatchNorm statistics of the loaded average on the last batches, attacked as in training."""
        count = min(self.config.ema_statistics or 0, self.batches.per_epoch)
        if not count or not has_statistics(self.trained):
            return
        stored = {name: tensor.clone() for name, tensor in self._image_tensors().items()}
        apart = replace(self.state, perturbations=stored.pop("perturbations", None), per_image=stored)
        with estimated_anew(self.trained):
            for step in range(self.state.step - count, self.state.step):
                for _ in self._losses(train, self.batches.at(step)[0], apart):
                    pass
        if self.accelerator.num_processes > 1:
            self._average_over_processes([b for b in self.trained.buffers() if b.is_floating_point()])

    def _image_tensors(self) -> dict[str, Tensor]:
        stored = self.state.perturbations
        return self.state.per_image | ({} if stored is None else {"perturbations": stored})

    def _update(self, trainable: Trainable, loss: Tensor, progress: float) -> None:
        """Compute the gradients of this trainable alone, average them over processes, and take a step."""
        parameters = trainable.parameters()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        if self.accelerator.num_processes > 1:
            self._average_over_processes([p.grad for p in parameters if p.grad is not None])
            buffers = [b for network in trainable.networks.values() for b in network.buffers()]
            self._average_over_processes([b for b in buffers if b.is_floating_point()])
        for group in trainable.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * trainable.schedule(progress) * self.state.lr_factor
        trainable.optimizer.step()
        trainable.optimizer.zero_grad(set_to_none=True)

    def _average_over_processes(self, tensors: list[Tensor]) -> None:
        if tensors:
            flat = self.accelerator.reduce(torch.cat([t.flatten() for t in tensors]), reduction="mean")
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))


def _pipelines(networks: Networks) -> Callable[[Tensor], list[Tensor]]:
    """Images to the logits of each guide behind the preprocessor, or of the classifier where there is no guide."""
    return pipelines(networks.preprocessor, list(networks.guides) or [networks.classifier])
