"""Auto-PGD: projected gradient descent that chooses its own step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import Iterative, State, ThreatField, loss_and_gradient
from forefend.attacks.pgd import Start
from forefend.checks import InputError, predictions
from forefend.losses import Loss, ce
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image, radius_per_image
from forefend.threat_models.lp import Linf

IsAdversarial = Callable[[Any, Any], Tensor]
_RISING = 0.75  # share of steps that must raise the loss to keep the step size
_MOMENTUM = 0.25  # weight of the previous step


@labeled("to_the_edge")
def noise_at_radius(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Start at uniform noise scaled to the full radius (l∞), or at the threat model's own noise (other norms)."""
    if not isinstance(threat, Linf):
        return threat.noise(x, rng)
    noise = 2 * rng.uniform(x) - 1
    largest = noise.abs().flatten(1).amax(1)
    return threat.project(x + broadcast_per_image(radius_per_image(threat, x) / largest) * noise, x)


@labeled("misclassified")
def misclassified(logits: Tensor, target: Tensor) -> Tensor:
    """Return `(B,)` bool: whether the predicted class differs from the label, or from the first of a pair `(B, 2)`."""
    return predictions(logits) != (target if target.ndim == 1 else target[:, 0])


@labeled("never")
def never(prediction: Any, target: Any) -> Tensor:
    """Return False, so that APGD keeps the image of highest loss: for losses without labels."""
    return torch.tensor(False)


@labeled("targeted_dlr")
def targeted_dlr(logits: Tensor, pair: Tensor) -> Tensor:
    """Return the targeted difference of logits ratio, `(B,)`.

    Args:
        logits: `(B, K)`, at least four classes.
        pair: the right class, then the target class, `(B, 2)` int64.

    Source: Croce and Hein, 2003.01690, Eq. 7.
    """
    right, wanted = logits.gather(1, pair).unbind(1)
    ranked = logits.topk(4, dim=1).values
    return (wanted - right) / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + 1e-12)


@dataclass(frozen=True, repr=False)
class APGD(Iterative):
    """PGD with momentum that halves its step size and returns to the best image when the loss stops rising.

    Args:
        threat: threat model, by name or as an object.
        steps: number of gradients, including the one at the start; the authors' 100 iterations are 101 here.
        loss: loss to maximize, `(prediction, target) -> (B,)`; `targeted_dlr` takes pairs of classes as target.
        start: first iterate, `(threat, x, rng) -> x_adv`.
        is_adv: `(prediction, target) -> (B,)` bool, whether each image is adversarial.

    Raises:
        InputError: the number of steps is below two.

    Source: Croce and Hein, 2003.01690, Algorithm 1. The result is the last adversarial image, as in the authors'
    code; where none was found, it is the image of highest loss (their code returns the clean image).
    """

    threat: ThreatField[ThreatModel] = ThreatField()
    steps: int = 100
    loss: Loss = ce
    start: Start = noise_at_radius
    is_adv: IsAdversarial = misclassified

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise InputError(f"APGD has {self.steps} steps: give at least 2, one for the start and one more.")

    def __str__(self) -> str:
        names = f"loss={label_of(self.loss)}, start={label_of(self.start)}, lost={label_of(self.is_adv)}"
        return f"APGD-{self.steps}({self.threat}, {names})"

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the start, twice the radius as step size, and no best image yet."""
        x_adv, none = self.start(self.threat, x, rng), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return {
            **dict.fromkeys(("x_adv", "x_before", "x_best", "x_success"), x_adv),
            **dict.fromkeys(("taken", "since", "rises"), none),  # gradients; steps and rises since the last checkpoint
            "interval": none + max(int(0.22 * self.steps), 1),
            "size": 2 * radius_per_image(self.threat, x),
            "best_gradient": torch.zeros_like(x),
            # As in the authors' code, the loss after the first step is compared with zero.
            "before": x.new_zeros(len(x)),
            **dict.fromkeys(("best", "best_at_check"), x.new_full((len(x),), -torch.inf)),
            "is_adv": none > 0,
            "halved": none == 0,
        }

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Take a gradient step with momentum, and adapt the step size."""
        prediction, loss, gradient = loss_and_gradient(
            f, state["x_adv"], target, self.loss, attack=self, index=rng.index
        )
        with torch.no_grad():
            return self.follow(state, loss, gradient, self.is_adv(prediction, target).to(x.device), x)

    def follow(self, state: State, loss: Tensor, gradient: Tensor, is_adv: Tensor, x: Tensor) -> State:
        """Return the state after a step, given what was computed at its iterate.

        Args:
            state: the state before.
            loss: of the iterate, `(B,)`.
            gradient: of the loss with respect to the iterate, `(B, C, H, W)`.
            is_adv: whether the iterate is adversarial, `(B,)` bool.
            x: clean images.
        """
        state = _updated(state, loss, gradient, is_adv)
        state, gradient = self._adapted(state, gradient)
        return self._stepped(state, gradient, x)

    def finish(self, state: State) -> Tensor:
        """Return the last adversarial image, else the one of highest loss."""
        return torch.where(broadcast_per_image(state["is_adv"]), state["x_success"], state["x_best"])

    def _adapted(self, state: State, gradient: Tensor) -> tuple[State, Tensor]:
        """At a checkpoint, halve the step size and return to the best image unless the loss rose enough."""
        interval, best = state["interval"], state["best"]
        due = state["since"] == interval
        stuck = ~state["halved"] & (state["best_at_check"] >= best)
        back = due & ((state["rises"] <= _RISING * interval) | stuck)
        shorter = (interval - max(int(0.03 * self.steps), 1)).clamp_min(max(int(0.06 * self.steps), 1))
        checked = {
            "x_adv": torch.where(broadcast_per_image(back), state["x_best"], state["x_adv"]),
            "size": torch.where(back, state["size"] / 2, state["size"]),
            "halved": torch.where(due, back, state["halved"]),
            "best_at_check": torch.where(due, best, state["best_at_check"]),
            "interval": torch.where(due, shorter, interval),
            "since": state["since"].masked_fill(due, 0),
            "rises": state["rises"].masked_fill(due, 0),
        }
        return state | checked, torch.where(broadcast_per_image(back), state["best_gradient"], gradient)

    def _stepped(self, state: State, gradient: Tensor, x: Tensor) -> State:
        """Take a projected step along the gradient, add momentum, and project again."""
        x_adv = state["x_adv"]
        stepped = self.threat.project(x_adv + self.threat.step(gradient, state["size"]), x)
        weight = broadcast_per_image(_MOMENTUM * (state["taken"] > 1).to(x.dtype))
        mixed = x_adv + (stepped - x_adv) * (1 - weight) + (x_adv - state["x_before"]) * weight
        return state | {"x_adv": self.threat.project(mixed, x), "x_before": x_adv}


def _updated(state: State, loss: Tensor, gradient: Tensor, is_adv: Tensor) -> State:
    """Record the newest loss and gradient of each image."""
    x_adv, moved = state["x_adv"], state["taken"] > 0
    better = loss > state["best"]
    return state | {
        "taken": state["taken"] + 1,
        "since": state["since"] + moved,
        "rises": state["rises"] + (moved & (loss > state["before"])),
        "before": torch.where(moved, loss, state["before"]),
        "best": torch.where(better, loss, state["best"]),
        "x_best": torch.where(broadcast_per_image(better), x_adv, state["x_best"]),
        "best_gradient": torch.where(broadcast_per_image(better), gradient, state["best_gradient"]),
        "is_adv": state["is_adv"] | is_adv,
        "x_success": torch.where(broadcast_per_image(is_adv), x_adv, state["x_success"]),
    }
