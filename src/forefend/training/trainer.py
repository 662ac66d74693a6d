"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from forefend.checks import as_integer, check_type
from forefend.data import ImageDataset, split
from forefend.models.freezing import frozen, gradients_enabled, restore_modes
from forefend.models.given_images import images_for_network
from forefend.recipes.base import Networks, Recipe
from forefend.recipes.state import TrainState
from forefend.runtime.distributed import accelerator_on, broadcast_weights, leave_group_at_exit
from forefend.runtime.progress import Progress
from forefend.runtime.run_folder import Run, run_in
from forefend.runtime.signals import Interrupted, catch_signals
from forefend.runtime.threads import use_threads
from forefend.training import best_epoch
from forefend.training.artifacts import defense_of
from forefend.training.batches import Augment, Batches, to_accelerator
from forefend.training.checkpoint import manifest
from forefend.training.config import TrainingConfig
from forefend.training.crafting import CraftingView
from forefend.training.ema import averaged
from forefend.training.examples import examples
from forefend.training.loop import Loop
from forefend.training.mixed_precision import mixed_precision
from forefend.training.sanity import check_roles, check_trainables, check_trained
from forefend.training.trackers import check_trackers
from forefend.training.tracking import Tracking
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
    track: Any = (),
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
        track: trackers that follow the run's log: `tensorboard`, `wandb`, `mlflow` or `trackio`, or trackers of
            accelerate, one or several. They change nothing of the training.

    Returns:
        The `Defense` with its card if a preprocessor was trained, else the classifier; in eval mode, without parameter
        gradients, and with shared weights.

    Raises:
        InputError: a hyper-parameter is out of range, a network does not fit, the run belongs to another training,
            a tracker is unknown, catastrophic overfitting was detected, or the loss is not finite.
        Interrupted: SIGINT or SIGTERM arrived; the step was finished and a checkpoint saved.
    """
    check_type(recipe, Recipe, "fit's recipe")
    check_type(networks, Networks, "fit's networks")
    check_type(config, TrainingConfig, "fit's config")
    data = images_for_network(next(iter(networks.guides), networks.classifier), data, "the classifier", split="train")
    seed = as_integer(seed, "seed")
    recipe.check()
    config.check(recipe)
    trackers = check_trackers(track, run)
    run = run_in(run) if run else None
    accelerator = accelerator or accelerator_on()
    leave_group_at_exit()
    networks.to(accelerator.device)
    broadcast_weights((networks.preprocessor, networks.classifier, networks.discriminator), accelerator)
    guides = [guide.state_digest() for guide in networks.guides]
    loop = _loop(recipe, data, networks, config, seed=seed, augment=augment, accelerator=accelerator)
    training = manifest(recipe, data, networks, seed=seed, config=config) if run else {}
    tracking = Tracking(run, trackers, training) if run and trackers else None
    log = TrainingLog(run, loop.trainables, loop.state, loop.average, training, loop.batches, accelerator, tracking)
    with (
        log.resumed(),
        use_threads(loop.state.threads or None),
        catch_signals() as received,
        _restored_generator(accelerator),
        restore_modes(loop.trained),
        mixed_precision(networks, config.precision) as train,
    ):
        _run(loop, train, log, received, checkpoint_every)
        loop.finish(train)
        log.end()
    recipe.on_train_end(networks, loop.state)
    if guides != [guide.state_digest() for guide in networks.guides]:
        raise RuntimeError("A guide changed during training, which is a defect: do not trust its weights.")
    if any(network is networks.preprocessor for network in loop.trained):
        return defense_of(recipe, data, networks, ema=config.ema, kept=loop.state.best)
    return frozen(networks.classifier)


def _run(loop: Loop, train: Networks, log: TrainingLog, received: list[int], checkpoint_every: float) -> None:
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
                measured = loop.end_epoch(train)
                log.end_epoch(measured, progress)
                if "accuracy" in measured and loop.monitor:
                    loop.monitor.update(state, measured["accuracy"], state.step // batches.per_epoch)
            if ended or stop or due:
                loop.merge()
                log.save()
                saved = time.monotonic()
            if ended:  # after the checkpoint, so that no tracker is told of steps that are repeated
                log.track(partial(examples, loop))
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
) -> Loop:
    """Check the networks, and prepare data, optimizers and state."""
    train, judging = best_epoch.hold_out(data, config.keep_best, seed) if config.keep_best else (data, None)
    train, held = split(train, recipe.hold_out, seed) if recipe.hold_out else (train, None)
    train = to_accelerator(train, accelerator.device)
    held, judging = (part and to_accelerator(part, accelerator.device) for part in (held, judging))
    batches = Batches(train, recipe.batch_size, recipe.epochs, seed, augment, accelerator)
    check_roles(recipe, networks)
    trainables = recipe.configure_optimizers(networks)
    check_trainables(trainables, networks.guides)
    few = batches.few(2).x
    networks.crafting().check(few, len(data.classes))
    return Loop(
        recipe=recipe,
        config=config,
        batches=batches,
        held=held,
        judging=judging,
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


@contextmanager
def _restored_generator(accelerator: Accelerator) -> Iterator[None]:
    """Restore the state of torch's generator afterwards."""
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        yield
