"""The only training loop: fit a recipe's players to a data set."""

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
from torch import Tensor

from forefend.checks import InputError, as_integer, check_data, check_type
from forefend.data import ImageDataset, split
from forefend.models.freezing import restore_modes
from forefend.recipes.base import Memory, Networks, Recipe, Trainable
from forefend.recipes.model_selection import LR_FACTOR
from forefend.runtime.distributed import accelerator_on, broadcast_weights, leave_group_at_exit
from forefend.runtime.progress import Progress
from forefend.runtime.run_folder import Run, run_in
from forefend.runtime.signals import Interrupted, catch_signals
from forefend.runtime.threads import use_threads
from forefend.training import checkpoint, ema
from forefend.training.batches import Augment, Batches, at_hand
from forefend.training.begun import begun
from forefend.training.catastrophic_overfitting import Monitor, threat_of
from forefend.training.config import AS_THE_PAPERS, TrainingConfig
from forefend.training.crafting import View
from forefend.training.ema import Averaged
from forefend.training.mixed_precision import mixed_precision


@dataclass
class _State:
    """Where training stands: the next step, this epoch's sums of losses, and the average of the weights."""

    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)  # player: [total loss, updates]
    average: Averaged = field(default_factory=dict)  # empty where none is kept
    threads: int = 0  # of the arithmetic; told in the checkpoint, for another number rounds otherwise


def fit(
    recipe: Recipe,
    data: ImageDataset,
    networks: Networks,
    *,
    run: Run | str | Path | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    accelerator: Accelerator | None = None,
    checkpoint_every: float = 60.0,
    config: TrainingConfig = AS_THE_PAPERS,
) -> None:
    """Train the cast's networks in place; guides are proved untouched, and modes are given back as they were.

    The same seed gives the same weights, whether or not training was interrupted and resumed from its checkpoint, which
    goes on with the number of threads that it was begun with, unless OMP_NUM_THREADS says another. On a GPU, whose sums
    come in any order, they are the same up to rounding.

    Args:
        recipe: what to do at each step.
        data: training images.
        networks: the networks; only those that the recipe's players own are trained.
        run: the folder of checkpoint and log, made if need be; what was begun there goes on. None keeps nothing.
        seed: of data order, augmentation and attack starts; initialization is the caller's.
        augment: label-preserving change of a batch; None for none.
        accelerator: device and processes; None takes CUDA where it is, else the CPU. Of several processes every one
            begins with the first one's weights.
        checkpoint_every: seconds between checkpoints; there is one after each epoch too.
        config: how it is done: what attacks see, precision, averaging, cheaper inner attacks, smaller images, a watch.

    Raises:
        InputError: a hyper-parameter is out of range, a network does not fit, the run is another training's, training
            has collapsed, or the loss is no longer a number.
        Interrupted: SIGINT or SIGTERM arrived; the step was finished and the state saved.
    """
    for given, kind, what in (
        (recipe, Recipe, "recipe"),
        (networks, Networks, "cast"),
        (config, TrainingConfig, "ways"),
    ):
        check_type(given, kind, f"fit's {what}")
    check_data(data, "fit's data")
    seed = as_integer(seed, "seed")
    recipe.check()
    config.check(recipe)
    accelerator = accelerator or accelerator_on()
    run = run_in(run) if run else None
    leave_group_at_exit()
    networks.to(accelerator.device)
    broadcast_weights((networks.preprocessor, networks.classifier, networks.discriminator), accelerator)
    untouched = [guide.likeness() for guide in networks.guides]
    batches = _batches(recipe, data, config, seed=seed, augment=augment, accelerator=accelerator)
    players, memory = recipe.players(networks), recipe.remember(batches.data) | config.inner.remember(batches.data)
    few = batches.few(2).x
    with torch.no_grad():
        networks.crafting().check(few, len(data.classes))
        config.sizes.check_cast(networks.crafting(), few, memory)
    view = config.craft(networks, few)  # before the weights are restored, so that stand-ins are made alike each time
    which = begun(recipe, data, networks, seed=seed, config=config) if run else {}
    loop = _Loop(recipe, batches, networks, players, memory, accelerator, view, config, which)
    state = _resume(run, loop)
    nets = [network for player in players.values() for network in player.networks.values()]
    with (
        use_threads(state.threads or None),
        catch_signals() as received,
        _generator(accelerator),
        restore_modes(*nets),
        mixed_precision(networks, config.precision) as train,
    ):
        _take_all(loop, train, state, run=run, received=received, checkpoint_every=checkpoint_every)
    ema.put(state.average, players)
    recipe.finish(networks, memory)
    if untouched != [guide.likeness() for guide in networks.guides]:
        raise RuntimeError("A guide changed during training: its weights must not be trusted, and this is a defect.")


def _take_all(
    loop: _Loop, train: Networks, state: _State, *, run: Run | None, received: list[int], checkpoint_every: float
) -> None:
    """Every step that is left, with what is due after each: the epoch's end, a checkpoint, a stop."""
    saved = time.monotonic()
    speaks, title = loop.accelerator.is_main_process, type(loop.recipe).__name__
    with Progress(title, loop.batches.steps, unit="steps", done=state.step, enabled=speaks) as progress:
        while state.step < loop.batches.steps:
            loop.take(state, train)
            progress.advance()
            stop, due = loop.agreed(bool(received), time.monotonic() - saved > checkpoint_every)
            ended = state.step % loop.batches.per_epoch == 0
            if ended:
                seen = loop.close_epoch(state)
                _tell(loop, state, run, progress, seen)
                loop.judge(state, seen)
            if ended or stop or due:
                loop.merge()
                _save(run, loop, state)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped after step {state.step} of {loop.batches.steps}")


@dataclass(frozen=True)
class _Loop:
    """One training run's fixed parts; `take` is one step of it."""

    recipe: Recipe
    batches: Batches
    networks: Networks
    players: dict[str, Trainable]
    memory: Memory
    accelerator: Accelerator
    view: View
    config: TrainingConfig
    begun: dict[str, Any]  # which training it is; empty where nothing is kept

    craft: Networks = field(init=False)
    watch: Monitor | None = field(init=False)
    before: Memory = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "craft", self.networks.crafting())
        object.__setattr__(self, "watch", self.config.watching(self.recipe))

    def take(self, state: _State, train: Networks) -> None:
        """One step: the recipe yields losses, and each player moves in turn."""
        if self.accelerator.num_processes > 1 and not self.before:
            self.before.update({name: tensor.clone() for name, tensor in self.memory.items()})
        batch, share = self.batches.at(state.step, self.memory)
        # Dropout draws from torch's own generator: keyed by step, it needs no state to be saved.
        torch.manual_seed(batch.rng.fold_in(purpose="torch", restart=self.accelerator.process_index).integer())
        for player in self.players.values():
            for network in player.networks.values():
                network.train()
        for name, loss in self.recipe.updates(train, self.view(), batch, self.memory):
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(f"The {name}'s loss is no longer a number at step {state.step}: lower --lr.")
            self._move(self.players[name], loss * share, batch.progress)
            total, count = state.sums.get(name, (0.0, 0))
            state.sums[name] = [total + value, count + 1]
        if self.config.ema is not None:
            ema.follow(state.average, self.players, self.config.ema, state.step)
        state.step += 1

    def merge(self) -> None:
        """Let every process remember what each has learnt of its own images: one checkpoint then serves all."""
        for name, old in self.before.items():
            # The processes of GPUs exchange what lies on these alone.
            learnt = (self.memory[name] - old).to(self.accelerator.device)
            self.memory[name] = old + self.accelerator.reduce(learnt, reduction="sum").to(old.device)
        self.before.clear()

    def close_epoch(self, state: _State) -> dict[str, float]:
        """Merge what the processes remember, show the recipe its held-out images, and the watch what it looks at."""
        self.merge()
        with ema.in_place(state.average, self.players):
            if self.batches.held is not None:
                self.recipe.validate(self.craft, self.batches.held_out(state.step), self.memory)
            if self.watch is None:
                return {}
            return self.watch.look(self.craft, threat_of(self.recipe), self.batches.few(self.watch.images))

    def judge(self, state: _State, seen: dict[str, float]) -> None:
        """Answer a collapse, if the watch has seen one."""
        if self.watch is not None:
            self.watch.judge(self.memory, seen, state.step // self.batches.per_epoch)

    def agreed(self, *wishes: bool) -> list[bool]:
        """For each wish, whether any process has it: all must act after the same step, or the others wait for ever."""
        if self.accelerator.num_processes > 1:
            asked = torch.tensor(wishes, dtype=torch.float32, device=self.accelerator.device)
            return [bool(wish) for wish in self.accelerator.reduce(asked, reduction="sum")]
        return list(wishes)

    def _move(self, player: Trainable, loss: Tensor, progress: float) -> None:
        """Fill this player's gradients alone, average them over processes, and step."""
        parameters = player.parameters()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient
        if self.accelerator.num_processes > 1:
            self._average([p.grad for p in parameters if p.grad is not None])
            self._average([b for n in player.networks.values() for b in n.buffers() if b.is_floating_point()])
        for group in player.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * player.schedule(progress) * float(self.memory.get(LR_FACTOR, 1.0))
        player.optimizer.step()
        player.optimizer.zero_grad(set_to_none=True)

    def _average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one exchange."""
        if tensors:
            flat = self.accelerator.reduce(torch.cat([t.flatten() for t in tensors]), reduction="mean")
            for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))


def _batches(
    recipe: Recipe,
    data: ImageDataset,
    config: TrainingConfig,
    *,
    seed: int,
    augment: Augment | None,
    accelerator: Accelerator,
) -> Batches:
    """The batches of a training, what is held out set apart; pixels lie where training takes place if they can."""
    data, held = split(data, recipe.hold_out, seed) if recipe.hold_out else (data, None)
    return Batches(
        data=at_hand(data, accelerator.device),
        held=None if held is None else at_hand(held, accelerator.device),
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=seed,
        augment=augment,
        inner=config.inner,
        sizes=config.sizes,
        accelerator=accelerator,
    )


def _resume(run: Run | None, loop: _Loop) -> _State:
    progress = checkpoint.restore(run.checkpoint, loop.players, loop.memory, loop.begun) if run else None
    state = _State(**progress) if progress else _State()
    if loop.config.ema is not None:
        state.average = ema.fitting(state.average, loop.players, resumed=state.step > 0)
    elif state.average:
        raise InputError("The checkpoint holds an average of the weights: go on with the --ema that it was begun with.")
    if run and loop.accelerator.is_main_process:
        run.rewind(state.step)
        if state.step:
            left = "nothing is left to do" if state.step >= loop.batches.steps else "going on from there"
            print(f"{run.folder} stands after step {state.step} of {loop.batches.steps}: {left}", flush=True)
    return state


def _save(run: Run | None, loop: _Loop, state: _State) -> None:
    if run and loop.accelerator.is_main_process:
        progress = vars(state) | {"threads": torch.get_num_threads()}
        checkpoint.store(run.checkpoint, loop.players, loop.memory, progress, loop.begun)


def _tell(loop: _Loop, state: _State, run: Run | None, progress: Progress, seen: dict[str, float]) -> None:
    """Log the epoch's mean losses and what the watch has seen."""
    epoch = state.step // loop.batches.per_epoch
    means = {name: total / count for name, (total, count) in state.sums.items()}
    state.sums.clear()
    if not loop.accelerator.is_main_process:
        return
    if run:
        run.log(epoch=epoch, step=state.step, loss=means, **({"accuracy": seen} if seen else {}))
    words = ", ".join(f"{name} loss {mean:.4f}" for name, mean in means.items())
    words += "".join(f", {name} {accuracy:.1%}" for name, accuracy in seen.items())
    progress.note(words)
    progress.print(f"epoch {epoch}/{loop.recipe.epochs}: {words}, {progress.remaining:.0f} s left")


@contextmanager
def _generator(accelerator: Accelerator) -> Iterator[None]:
    """Give torch's generator back to the caller as it was."""
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        yield
