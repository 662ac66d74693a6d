"""Attacks that go step by step: what a loop needs that stops an image as soon as it is lost and takes in another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.rng import KeyedRNG

State = dict[str, Tensor]  # each tensor's first dimension is the batch, so that rows can be dropped and added


class Attack(Protocol):
    """What every attack is."""

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images for `x`, `(B, C, H, W)` in [0, 1], allowed by the attack's threat model."""


class Iterative(Attack, Protocol):
    """An attack that is `begin`, then `steps` times `advance`, then `finish`; nothing hangs on who shares the batch."""

    @property
    def steps(self) -> int:
        """How often `advance` is called."""

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Where the attack starts, before `f` is asked anything."""

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """One step further; `rng` stands at this step, which may differ from image to image."""

    def finish(self, state: State) -> Tensor:
        """The adversarial images that the attack has come to."""


def run_attack(attack: Iterative, f: Callable[[Tensor], Any], x: Tensor, target: Any, rng: KeyedRNG) -> Tensor:
    """Take every step for every image; `f`'s modes are borrowed and given back.

    Args:
        attack: what to run.
        f: what the attacker sees.
        x: clean images, `(B, C, H, W)` in [0, 1].
        target: what the attack's loss compares with.
        rng: where its random numbers come from.
    """
    state = attack.begin(x, rng)
    with eval_and_no_grad(f):
        for step in range(attack.steps):
            state = attack.advance(f, state, x, target, rng=at_step(rng, attack, step))
    return attack.finish(state).detach()


def at_step(rng: KeyedRNG, attack: Iterative, step: int | Tensor) -> KeyedRNG:
    """The source for one step of an attack: other numbers than its start's, and other ones at each training step.

    Args:
        rng: the attack's own source; inside a recipe it stands at a training step.
        attack: whose steps are counted.
        step: from 0, one or `(B,)` of them.
    """
    return rng.fold_in(purpose=f"{rng.purpose}|step", step=rng.step * attack.steps + step)
