"""The only training loop: fit a recipe's players to a data set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from . import checkpoint
from .checks import InputError
from .data import Images, split
from .draw import Draw
from .interrupt import Interrupted, stoppable
from .modes import returned
from .recipe import Batch, Cast, Memory, Player, Recipe
from .records import Run
from .validation import LR_FACTOR

Augment = Callable[[Tensor, Draw], Tensor]


@dataclass
class _State:
    """Where training stands: the next step, and this epoch's sums of losses."""

    step: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)  # player: [total loss, updates]


def fit(
    recipe: Recipe,
    data: Images,
    cast: Cast,
    *,
    run: Run | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    accelerator: Accelerator | None = None,
    checkpoint_every: float = 60.0,
) -> None:
    """Train the cast's networks in place; guides are proved untouched, and modes are given back as they were.

    The same seed gives the same weights, whether or not training was interrupted and resumed from its checkpoint.

    Args:
        recipe: what to do at each step.
        data: training images.
        cast: the networks; only those that the recipe's players own are trained.
        run: where checkpoint and log go; None keeps nothing.
        seed: of data order, augmentation and attack starts; initialisation is the caller's.
        augment: label-preserving change of a batch; None for none.
        accelerator: device and processes; None takes the best device there is.
        checkpoint_every: seconds between checkpoints; there is one after each epoch too.

    Raises:
        InputError: a hyper-parameter is out of range, a network or the checkpoint does not fit, or the loss is no
            longer a number.
        Interrupted: SIGINT or SIGTERM arrived; the step was finished and the state saved.
    """
    recipe.check()
    accelerator = accelerator or Accelerator()
    cast.to(accelerator.device)
    untouched = [guide.likeness() for guide in cast.guides]
    held = None
    if recipe.hold_out:
        data, held = split(data, recipe.hold_out, seed)
    players, memory = recipe.players(cast), recipe.remember(data)
    loop = _Loop(recipe, data, held, cast, players, memory, seed, augment, accelerator)
    loop.check()
    state = _resume(run, players, memory, accelerator)
    networks = [network for player in players.values() for network in player.networks.values()]
    with stoppable() as received, _generator(accelerator), returned(*networks), _bar(loop, state) as bar:
        first, began = state.step, time.monotonic()
        saved = began
        while state.step < loop.steps:
            loop.take(state)
            bar.update()
            stop, due = loop.agreed(bool(received), time.monotonic() - saved > checkpoint_every)
            ended = state.step % loop.steps_per_epoch == 0
            if ended:
                loop.close_epoch(state.step)
                _tell(loop, state, run, bar, (time.monotonic() - began) / (state.step - first))
            if ended or stop or due:
                loop.merge()
                _save(run, loop, state)
                saved = time.monotonic()
            if stop:
                raise Interrupted(f"stopped after step {state.step} of {loop.steps}")
    recipe.finish(cast, memory)
    if untouched != [guide.likeness() for guide in cast.guides]:
        raise RuntimeError("A guide changed during training: its weights must not be trusted, and this is a defect.")


@dataclass(frozen=True)
class _Loop:
    """One training run's fixed parts; `take` is one step of it."""

    recipe: Recipe
    data: Images
    held: Images | None
    cast: Cast
    players: dict[str, Player]
    memory: Memory
    seed: int
    augment: Augment | None
    accelerator: Accelerator

    craft: Cast = field(init=False)
    before: Memory = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "craft", self.cast.crafting())

    def check(self) -> None:
        """Refuse networks that do not fit the images."""
        x, _, _ = self.data.batch(torch.arange(min(2, len(self.data))))
        with torch.no_grad():
            self.craft.check(x.to(self.accelerator.device), len(self.data.classes))

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data) / self.recipe.batch_size)

    @property
    def steps(self) -> int:
        return self.recipe.epochs * self.steps_per_epoch

    def take(self, state: _State) -> None:
        """One step: the recipe yields losses, and each player moves in turn."""
        if self.accelerator.num_processes > 1 and not self.before:
            self.before.update({name: tensor.clone() for name, tensor in self.memory.items()})
        batch, share = self._batch(state.step)
        # Dropout draws from torch's own generator: keyed by step, it needs no state to be saved.
        torch.manual_seed(batch.draw.at(trial="torch", restart=self.accelerator.process_index).number())
        for player in self.players.values():
            for network in player.networks.values():
                network.train()
        for name, loss in self.recipe.updates(self.cast, self.craft, batch, self.memory):
            value = float(loss.detach())
            if not math.isfinite(value):
                raise InputError(f"The {name}'s loss is no longer a number at step {state.step}: lower --lr.")
            self._move(self.players[name], loss * share, batch.progress)
            total, count = state.sums.get(name, (0.0, 0))
            state.sums[name] = [total + value, count + 1]
        state.step += 1

    def merge(self) -> None:
        """Let every process remember what each has learnt of its own images: one checkpoint then serves all."""
        for name, old in self.before.items():
            self.memory[name] = old + self.accelerator.reduce(self.memory[name] - old, reduction="sum")
        self.before.clear()

    def close_epoch(self, step: int) -> None:
        """Merge what the processes remember of their images, and show the recipe its held-out ones."""
        self.merge()
        if self.held is not None:
            self.recipe.validate(self.craft, self._held_batches(step), self.memory)

    def _held_batches(self, step: int) -> Iterator[Batch]:
        """The held-out training images, as they are; every process looks at all of them, so that all decide alike."""
        assert self.held is not None
        for rows in torch.arange(len(self.held)).split(self.recipe.batch_size):
            x, y, index = (tensor.to(self.accelerator.device) for tensor in self.held.batch(rows))
            # The draw is the same at every epoch, so that epochs are compared under the same attack.
            yield Batch(x, y, index, step / self.steps, Draw(index, self.seed, "validate"))

    def agreed(self, *wishes: bool) -> list[bool]:
        """For each wish, whether any process has it: all must act after the same step, or the others wait for ever."""
        if self.accelerator.num_processes > 1:
            asked = torch.tensor(wishes, dtype=torch.float32, device=self.accelerator.device)
            return [bool(wish) for wish in self.accelerator.reduce(asked, reduction="sum")]
        return list(wishes)

    def _batch(self, step: int) -> tuple[Batch, float]:
        """This process's images of a step, and the factor that makes the processes' mean the batch's mean."""
        epoch, place = divmod(step, self.steps_per_epoch)
        # Batches of nearly equal size: no image is dropped, and none is left alone with BatchNorm.
        rows = self._order(epoch).tensor_split(self.steps_per_epoch)[place]
        mine = rows.tensor_split(self.accelerator.num_processes)[self.accelerator.process_index]
        x, y, index = (tensor.to(self.accelerator.device) for tensor in self.data.batch(mine))
        draw = Draw(index, self.seed, "train", step=step)
        if self.augment is not None:
            x = self.augment(x, draw.at(trial="augment"))
        share = len(mine) * self.accelerator.num_processes / len(rows)
        return Batch(x, y, index, step / self.steps, draw), share

    def _order(self, epoch: int) -> Tensor:
        number = Draw(torch.empty(0), self.seed, "order", step=epoch).number()
        return torch.randperm(len(self.data), generator=torch.Generator().manual_seed(number))

    def _move(self, player: Player, loss: Tensor, progress: float) -> None:
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


def _resume(run: Run | None, players: dict[str, Player], memory: Memory, accelerator: Accelerator) -> _State:
    progress = checkpoint.restore(run.checkpoint, players, memory) if run else None
    state = _State(**progress) if progress else _State()
    if run and accelerator.is_main_process:
        run.rewind(state.step)
    return state


def _save(run: Run | None, loop: _Loop, state: _State) -> None:
    if run and loop.accelerator.is_main_process:
        checkpoint.store(run.checkpoint, loop.players, loop.memory, {"step": state.step, "sums": state.sums})


def _tell(loop: _Loop, state: _State, run: Run | None, bar: Any, pace: float) -> None:
    """Log the epoch's mean losses, to the run and to whoever watches; `pace` is seconds a step."""
    epoch = state.step // loop.steps_per_epoch
    means = {name: total / count for name, (total, count) in state.sums.items()}
    state.sums.clear()
    if not loop.accelerator.is_main_process:
        return
    if run:
        run.log(epoch=epoch, step=state.step, loss=means)
    words = ", ".join(f"{name} loss {mean:.4f}" for name, mean in means.items())
    bar.set_postfix_str(words)
    if bar.disable:
        print(f"epoch {epoch}/{loop.recipe.epochs}: {words}, {pace * (loop.steps - state.step):.0f} s left", flush=True)


def _bar(loop: _Loop, state: _State) -> Any:
    """Progress with the time that remains on a terminal; elsewhere, `_tell` prints a line an epoch."""
    hidden = None if loop.accelerator.is_main_process else True
    title = type(loop.recipe).__name__
    return tqdm(total=loop.steps, initial=state.step, desc=title, unit="step", disable=hidden, smoothing=0.05)


@contextmanager
def _generator(accelerator: Accelerator) -> Iterator[None]:
    """Give torch's generator back to the caller as it was."""
    with torch.random.fork_rng([accelerator.device] if accelerator.device.type == "cuda" else []):
        yield
