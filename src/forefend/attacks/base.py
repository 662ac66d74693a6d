"""The interface of attacks, and the fields and the loop that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from forefend.checks import InputError, as_labels, check_finite, check_labels, check_range
from forefend.losses import LABEL_LOSSES, Loss, Mean
from forefend.models.freezing import eval_and_no_grad, gradients_enabled
from forefend.runtime.rng import KeyedRNG, as_rng
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.parsing import as_threat_model

State = dict[str, Tensor]  # the first dimension of each tensor is the batch, so that rows can be dropped and added
Kind = TypeVar("Kind", bound=ThreatModel)
NO_EVIDENCE = "the attack proves nothing; find where the classifier divides by zero, or takes the root or norm of 0"


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

        Raises:
            InputError: labels that are no class numbers, or a loss or a gradient that is NaN or infinite.
        """
        rng = as_rng(rng, x, str(self))
        with attacking(f, x, target, getattr(self, "loss", None)) as (f, x, target):
            state = self.begin(x, rng)
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

    def go_on(self, x: Tensor, x_adv: Tensor, rng: KeyedRNG) -> State:
        """Return the start of an attack that goes on from images of an earlier one; by default it begins anew."""
        return self.begin(x, rng)

    def exhausted(self, state: State) -> Tensor | None:
        """Return which images need no further step, `(B,)` bool; by default every image takes all steps."""
        return None


def at_step(rng: KeyedRNG, attack: Iterative, step: int | Tensor) -> KeyedRNG:
    """Return the random numbers for one step of an attack, different from those of its start.

    Args:
        rng: the attack's random numbers; inside a recipe their step is the training step.
        attack: the attack whose steps are counted.
        step: from 0, one or `(B,)`.
    """
    return rng.fold_in(purpose=f"{rng.purpose}|step", step=rng.step * attack.steps + step)


@contextmanager
def attacking(
    f: Callable[[Tensor], Any], x: Tensor, target: Any, loss: Loss | None
) -> Iterator[tuple[Callable[[Tensor], Any], Tensor, Any]]:
    """Prepare a call of an attack: `f` in eval mode, gradients enabled, and labels checked.

    Args:
        f: images to predictions; its modes are restored afterwards.
        x: clean images, `(B, C, H, W)`.
        target: second argument of the loss; integers become int64.
        loss: the attack's loss; None if it has none.

    Yields:
        `f`, `x` and `target` for the attack.

    Raises:
        InputError: pixels outside [0, 1], or labels that are not one class number for each image.
    """
    check_range(x)  # an attack clips to [0, 1]: other images would be replaced by black and white ones
    if labels := _takes_labels(loss, target):
        target = as_labels(target, len(x))
    with eval_and_no_grad(f), gradients_enabled():
        x, target = _usable(x), _usable(target)
        yield _with_label_check(f, target) if labels else f, x, target


def _takes_labels(loss: Loss | None, target: Any) -> bool:
    """Return whether the target must be labels `(B,)`; a list holds the labels of each prediction."""
    if isinstance(loss, Mean):
        return isinstance(target, Tensor) and _takes_labels(loss.loss, target)
    return loss in LABEL_LOSSES


def _with_label_check(f: Callable[[Tensor], Any], y: Tensor) -> Callable[[Tensor], Any]:
    """Return `f` that refuses labels beyond its number of logits, on which a GPU would abort."""
    low, high = (int(y.min()), int(y.max())) if len(y) else (0, 0)

    def checked(x: Tensor) -> Any:
        prediction = f(x)
        logits = prediction[0] if isinstance(prediction, list | tuple) else prediction
        if low < 0 or high >= logits.shape[-1]:
            check_labels(y, logits.shape[-1])
        return prediction

    return checked


def loss_and_gradient(
    f: Callable[[Tensor], Any],
    x: Tensor,
    target: Any,
    loss: Loss,
    *,
    attack: object = None,
    index: Tensor | None = None,
) -> tuple[Any, Tensor, Tensor]:
    """Return the prediction, each image's loss `(B,)`, and its gradient with respect to that image.

    The losses are summed, so that each image gets its own gradient; no parameter collects one.

    Args:
        f: images to predictions.
        x: images, `(B, C, H, W)`.
        target: second argument of the loss.
        loss: `(prediction, target) -> (B,)`.
        attack: the attack, for the message.
        index: dataset index of each image, `(B,)`, for the message.

    Raises:
        InputError: the loss or the gradient of an image is NaN or infinite, or there is no gradient.
    """
    x = _usable(x).requires_grad_()
    with torch.enable_grad():
        prediction = f(x)
        losses = loss(prediction, target)
        gradient = torch.autograd.grad(losses.sum(), x, allow_unused=True)[0] if losses.requires_grad else None
    if gradient is None:
        raise InputError(
            f"The model gives no gradient, and {attack or 'input_gradient'} needs one: wrap the part that has none in "
            "bpda(...), or use Square."
        )
    check_finite(losses, "The loss", NO_EVIDENCE, index, attack)
    check_finite(gradient, "The gradient", NO_EVIDENCE, index, attack)
    return prediction, losses.detach(), gradient


def input_gradient(
    f: Callable[[Tensor], Any],
    x: Tensor,
    target: Any,
    loss: Loss,
    *,
    attack: object = None,
    index: Tensor | None = None,
) -> Tensor:
    """Return the gradient of each image's loss with respect to that image, as `loss_and_gradient` does."""
    return loss_and_gradient(f, x, target, loss, attack=attack, index=index)[2]


def _usable(value: Any) -> Any:
    """Return tensors detached and integers as int64; copies where torch.inference_mode permits no gradient."""
    if type(value) in (tuple, list):
        return type(value)(map(_usable, value))
    if not isinstance(value, Tensor):
        return value
    if value.dtype in (torch.int32, torch.int16, torch.int8, torch.uint8):
        value = value.long()
    return value.detach().clone() if value.is_inference() else value.detach()
