"""The interface of attacks, and the fields and the loop that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from forefend.checks import InputError
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.rng import KeyedRNG, as_rng
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_model

State = dict[str, Tensor]  # the first dimension of each tensor is the batch, so that rows can be dropped and added
Kind = TypeVar("Kind", bound=ThreatModel)


class Attack(Protocol):
    """The interface of an attack: a frozen dataclass whose `str()` names its settings."""

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Return adversarial images for `x`, `(B, C, H, W)` in [0, 1], inside the attack's threat model."""


class ThreatField(Generic[Kind]):
    """A dataclass field that accepts a threat model by name or as an object, and holds the object.

    Args:
        kinds: the threat models that the attack supports; none means all.
    """

    def __init__(self, *kinds: type[Kind]) -> None:
        self.kinds = kinds

    def __get__(self, attack: object | None, owner: type) -> Kind:
        if attack is None:
            raise AttributeError("threat")  # dataclass: the field has no default
        threat: Kind = attack.__dict__["threat"]
        return threat

    def __set__(self, attack: object, given: ThreatModel | str) -> None:
        threat = as_threat_model(given)
        if self.kinds and type(threat) not in self.kinds:
            expected = " or ".join(kind.__name__ for kind in self.kinds)
            raise InputError(f"{type(attack).__name__} does not support the threat model {threat}: give {expected}.")
        attack.__dict__["threat"] = threat


class StepSizeField:
    """A dataclass field for a step size; None means 2.5 radii divided by the number of steps (Madry et al.)."""

    def __get__(self, attack: object | None, owner: type) -> float | Tensor:
        return None if attack is None else attack.__dict__["step_size"]  # type: ignore[return-value]

    def __set__(self, attack: Any, given: float | Tensor | None) -> None:
        size = 2.5 * attack.threat.radius / max(attack.steps, 1) if given is None else given
        attack.__dict__["step_size"] = size


class Iterative(ABC):
    """An attack of `begin`, `steps` calls of `advance`, and `finish`; no image depends on the others of its batch."""

    steps: int

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG | None = None) -> Tensor:
        """Attack a batch of images.

        Args:
            f: images to predictions; its modes are restored afterwards.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: second argument of the attack's loss, usually the labels `(B,)`.
            rng: random numbers; by default seed 0 and the images' places in the batch.

        Returns:
            Adversarial images, `(B, C, H, W)`.
        """
        rng = as_rng(rng, x, str(self))
        state = self.begin(x, rng)
        with eval_and_no_grad(f):
            for step in range(self.steps):
                state = self.advance(f, state, x, target, rng=at_step(rng, self, step))
        return self.finish(state).detach()

    @abstractmethod
    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the initial state, without calling `f`."""

    @abstractmethod
    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Return the state after one step; the step of `rng` may differ from image to image."""

    def finish(self, state: State) -> Tensor:
        """Return the adversarial images, by default the last iterate."""
        return state["x_adv"]


def at_step(rng: KeyedRNG, attack: Iterative, step: int | Tensor) -> KeyedRNG:
    """Return the random numbers for one step of an attack, different from those of its start.

    Args:
        rng: the attack's random numbers; inside a recipe their step is the training step.
        attack: the attack whose steps are counted.
        step: from 0, one or `(B,)`.
    """
    return rng.fold_in(purpose=f"{rng.purpose}|step", step=rng.step * attack.steps + step)
