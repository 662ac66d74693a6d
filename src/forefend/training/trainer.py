"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from forefend.attacks.base import Attack
from forefend.checks import InputError, as_integer, check_type
from forefend.data import ImageDataset, split
from forefend.data.registry import as_image_dataset
from forefend.models.freezing import frozen, gradients_enabled, restore_modes
from forefend.recipes.base import Batch, Networks, Recipe, Trainable, no_attack
from forefend.recipes.state import TrainState
from forefend.runtime.distributed import accelerator_on, broadcast_weights, leave_group_at_exit
from forefend.runtime.progress import Progress
from forefend.runtime.run_folder import Run, run_in
from forefend.runtime.signals import Interrupted, catch_signals
from forefend.runtime.threads import use_threads
from forefend.training.artifacts import defense_of
from forefend.training.batches import Augment, Batches, to_accelerator
from forefend.training.checkpoint import manifest
from forefend.training.config import TrainingConfig
from forefend.training.crafting import CraftingView
from forefend.training.ema import average_loaded, averaged, load_average, trained_networks
from forefend.training.inner_attacks import AtLeast
from forefend.training.mixed_precision import mixed_precision
from forefend.training.sanity import check_trainables, check_trained
from forefend.training.training_log import TrainingLog


@gradients_enabled()
def fit(
    recipe: Recipe,
    data: Any,
    networks: Networks,
    *,
    run: Run | str | Path | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    accelerator: Accelerator | None = None,
    checkpoint_every: float = 60.0,
    config: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
) -> nn.Module:
    """Train networks in place with a recipe, and return the result.

    The same seed gives the same weights, also when training is interrupted and resumes from its checkpoint. It then
    uses the number of threads that it started with, unless OMP_NUM_THREADS is set. On a GPU, the weights are the same
    up to rounding. Guides are not changed, and every network keeps its mode.

    Args:
        recipe: the training method.
        data: training images: an ImageDataset, a pair (x, y), a torch Dataset or a DataLoader.
        networks: the networks; those that the recipe trains are trained in place.
        run: the folder of checkpoint and log; a training that it holds is resumed. None keeps nothing.
        seed: seed of data order, augmentation and attacks; the networks are initialized by the caller.
        augment: label-preserving change of a batch; None for none.
        accelerator: device and processes; None for CUDA, else the CPU. All processes start with the weights of the
            first one.
        checkpoint_every: seconds between checkpoints; there is also one after each epoch.
        config: options that do not depend on the recipe.

    Returns:
        The `Defense` with its card if a preprocessor was trained, else the classifier; in eval mode, without parameter
        gradients, and with shared weights.

    Raises:
        InputError: a hyper-parameter is out of range, a network does not fit, the run belongs to another training,
            catastrophic overfitting was detected, or the loss is not finite.
        Interrupted: SIGINT or SIGTERM arrived; the step was finished and a checkpoint saved.
    """
    check_type(recipe, Recipe, "fit's recipe")
    check_type(networks, Networks, "fit's networks")
    check_type(config, TrainingConfig, "fit's config")
    data = as_image_dataset(data, split="train")
    seed = as_integer(seed, "seed")
    recipe.check()
    config.check(recipe)
    run = run_in(run) if run else None
    accelerator = accelerator or accelerator_on()
    leave_group_at_exit()
    networks.to(accelerator.device)
    broadcast_weights((networks.preprocessor, networks.classifier, networks.discriminator), accelerator)
    guides = [guide.state_digest() for guide in networks.guides]
    loop = _loop(recipe, data, networks, config, seed=seed, augment=augment, accelerator=accelerator)
    training = manifest(recipe, data, networks, seed=seed, config=config) if run else {}
    log = TrainingLog(run, loop.trainables, loop.state, loop.average, training, loop.batches, accelerator)
    with (
        log.resumed(),
        use_threads(loop.state.threads or None),
        catch_signals() as received,
        _restored_generator(accelerator),
        restore_modes(loop.trained),
        mixed_precision(networks, config.precision) as train,
    ):
        _run(loop, train, log, received, checkpoint_every)
    if loop.average:
        load_average(loop.average, loop.trained)
    recipe.on_train_end(networks, loop.state)
    if guides != [guide.state_digest() for guide in networks.guides]:
        raise RuntimeError("A guide changed during training, which is a defect: do not trust its weights.")
    if any(network is networks.preprocessor for network in loop.trained):
        return defense_of(recipe, data, networks, config.ema)
    return frozen(networks.classifier)


def _run(loop: _Loop, train: Networks, log: TrainingLog, received: list[int], checkpoint_every: float) -> None:
    """Take the remaining steps; end epochs, save checkpoints and stop where it is due."""
    saved, state, batches = time.monotonic(), loop.state, loop.batches
    title, main = type(loop.recipe).__name__, loop.accelerator.is_main_process
    with Progress(title, batches.steps, unit="steps", done=state.step, enabled=main) as progress:
        while state.step < batches.steps:
            loop.step(train)
            progress.advance()
            stop, due = loop.any_process(bool(received), time.monotonic() - saved > checkpoint_every)
            ended = state.step % batches.per_epoch == 0
            if state.step == batches.steps or (log.run and (ended or stop or due)):  # before weights are kept
                check_trained(loop.trained, loop.evaluated, loop.few, state.step)
            if ended:
                accuracy = loop.end_epoch()
                log.end_epoch(accuracy, progress)
                if accuracy and loop.monitor:
                    loop.monitor.update(state, accuracy, state.step // batches.per_epoch)
            if ended or stop or due:
                loop.merge()
                log.save()
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped after step {state.step} of {batches.steps}")


def _loop(
    recipe: Recipe,
    data: ImageDataset,
    networks: Networks,
    config: TrainingConfig,
    *,
    seed: int,
    augment: Augment | None,
    accelerator: Accelerator,
) -> _Loop:
    """Check the networks, and prepare data, optimizers and state."""
    train, held = split(data, recipe.hold_out, seed) if recipe.hold_out else (data, None)
    train = to_accelerator(train, accelerator.device)
    held = held and to_accelerator(held, accelerator.device)
    batches = Batches(train, held, recipe.batch_size, recipe.epochs, seed, augment, accelerator)
    trainables = recipe.configure_optimizers(networks)
    check_trainables(trainables, networks.guides)
    few = batches.few(2).x
    networks.crafting().check(few, len(data.classes))
    return _Loop(
        recipe=recipe,
        config=config,
        batches=batches,
        trainables=trainables,
        accelerator=accelerator,
        evaluated=networks.crafting(),
        # Before a checkpoint is loaded, so that copies are made from the same weights when training resumes.
        view=CraftingView(networks, few, config.attack_copy),
        few=few,
        average=None if config.ema is None else averaged(trainables.values(), config.ema),
        state=TrainState(
            per_image=recipe.init_state(train), perturbations=config.inner_attack.init_perturbations(train)
        ),
    )


@dataclass
class _Loop:
    """The parts of a training run."""

    recipe: Recipe
    config: TrainingConfig
    batches: Batches
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
        """Take one step: the recipe yields losses, and each trainable is updated in turn."""
        state = self.state
        if self.accelerator.num_processes > 1 and not self.before:
            self.before = {name: tensor.clone() for name, tensor in self._image_tensors().items()}
        batch, share = self.batches.at(state.step)
        # Dropout uses torch's own generator: seeded by step, it needs no state in checkpoints.
        torch.manual_seed(batch.rng.fold_in(purpose="torch", restart=self.accelerator.process_index).integer())
        for network in self.trained:
            network.train()
        for name, loss in self.recipe.training_step(train, self.view.refresh(), batch, self._attack(batch), state):
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

    def end_epoch(self) -> dict[str, float]:
        """Merge, validate, and return the accuracies that the monitor measures."""
        self.merge()
        with average_loaded(self.average, self.trained):
            if self.batches.held is not None:
                self.recipe.validate(self.evaluated, self.batches.held_out(self.state.step), self.state)
            attack = self.recipe.inner_attack()
            if self.monitor is None or attack is None:
                return {}
            return self.monitor.measure(self.evaluated, attack.threat, self.batches.few(self.monitor.images))

    def any_process(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process, so that all processes act after the same step."""
        if self.accelerator.num_processes == 1:
            return list(flags)
        given = torch.tensor(flags, dtype=torch.float32, device=self.accelerator.device)
        return [bool(flag) for flag in self.accelerator.reduce(given, reduction="sum")]

    def _attack(self, batch: Batch) -> Attack:
        attack = self.recipe.inner_attack()
        if attack is None:
            return no_attack
        return (AtLeast() if self.state.fallen_back else self.config.inner_attack)(attack, batch, self.state)

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


@contextmanager
def _restored_generator(accelerator: Accelerator) -> Iterator[None]:
    """Restore the state of torch's generator afterwards."""
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        yield
