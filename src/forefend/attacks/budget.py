"""A budget for each image: many steps for images that are nearly misclassified, few for those that are far from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import Iterative, State
from forefend.checks import InputError
from forefend.losses import Loss, margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image

_OWN = ("budget_first", "budget_nearest", "budget_spent")
_LOOK = -1  # of the steps spent: the next one looks at the clean image


@dataclass(frozen=True, repr=False)
class Budgeted(Iterative):
    """An attack that gives an image `least / s²` steps, where `s` is the share of its margin that is left.

    The margin is that of the correct logit over the largest other one, at the nearest iterate so far, as a share of
    the margin at the first; where the attack goes on from an earlier one, at the clean image. An image whose margin
    fell to a third gets nine times the steps of one whose margin did not fall. The share needs no scale of the logits,
    and no other image. An evaluation that stops at success takes an image whose budget is spent out of the batch; a
    plain call of the attack takes every step.

    Args:
        attack: an attack in steps on logits and labels; its steps are the largest budget.
        least: steps of an image that no step brings nearer.

    Raises:
        InputError: the smallest budget is below one step or above the steps of the attack.
    """

    attack: Iterative
    least: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.attack.steps:
            raise InputError(
                f"The smallest budget is {self.least} steps, and {self.attack} has {self.attack.steps}: give 1 to "
                f"{self.attack.steps}."
            )

    def __str__(self) -> str:
        return f"Budgeted-{self.least}({self.attack})"

    @property
    def threat(self) -> ThreatModel:
        """The threat model of the attack."""
        threat: ThreatModel = self.attack.threat  # type: ignore[attr-defined]
        return threat

    @property
    def loss(self) -> Loss | None:
        """The loss of the attack, which tells that its target must be labels."""
        loss: Loss | None = getattr(self.attack, "loss", None)
        return loss

    @property
    def classes(self) -> int:
        """The number of logits that the attack is made for; an attack for any number has none."""
        return int(self.attack.classes)  # type: ignore[attr-defined]

    @property
    def steps(self) -> int:  # type: ignore[override]
        """The largest budget."""
        return self.attack.steps

    @property
    def gradients(self) -> int:
        """Largest number of gradients for an image."""
        return int(getattr(self.attack, "gradients", self.attack.steps))

    @property
    def forwards(self) -> int:
        """Largest number of forward passes for an image, where the attack counts them."""
        return int(getattr(self.attack, "forwards", 0))

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the start of the attack, and no margin yet."""
        zero, none = x.new_zeros(len(x)), x.new_full((len(x),), -torch.inf)
        own = {"budget_first": zero, "budget_nearest": none, "budget_spent": zero}
        return self.attack.begin(x, rng) | own

    def go_on(self, x: Tensor, x_adv: Tensor, rng: KeyedRNG) -> State:
        """Return the start at images of an earlier attack; the first step looks at the clean image alone."""
        start = self.attack.go_on(x, x_adv, rng)
        return self.begin(x, rng) | start | {"budget_spent": x.new_full((len(x),), _LOOK)}

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Take a step of the attack, and keep the margin that it found."""
        margins: list[Tensor] = []
        looks = state["budget_spent"] == _LOOK

        def watched(images: Tensor) -> Any:
            logits = f(torch.where(broadcast_per_image(looks), x, images))
            margins.append(margin(logits.detach(), target))
            return logits

        inner = {name: tensor for name, tensor in state.items() if name not in _OWN}
        after = self.attack.advance(watched, inner, x, target, rng=rng)
        if bool(looks.any()):
            kept = looks.nonzero().squeeze(1)
            after = {
                name: tensor.index_copy(0, kept, inner[name][kept].to(tensor.dtype)) for name, tensor in after.items()
            }
        found, first = torch.stack(margins).amax(0), state["budget_first"]
        return after | {
            "budget_first": torch.where(first == 0, found, first),
            "budget_nearest": torch.maximum(found, state["budget_nearest"]),
            "budget_spent": state["budget_spent"] + 1,
        }

    def finish(self, state: State) -> Tensor:
        """Return the adversarial images of the attack."""
        return self.attack.finish(state)

    def exhausted(self, state: State) -> Tensor:
        """Return whether the budget of each image is spent, `(B,)` bool."""
        left = (state["budget_nearest"] / state["budget_first"].clamp_max(-1e-12)).clamp(0, 1)
        return state["budget_spent"] * left.square() >= self.least
