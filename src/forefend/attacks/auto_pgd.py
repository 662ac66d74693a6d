"""Auto-PGD: projected gradient descent that chooses its own step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import State, run_attack
from forefend.attacks.pgd import Start
from forefend.checks import InputError
from forefend.losses import Loss, ce
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image, radius_per_image
from forefend.threat_models.lp import Linf

Lost = Callable[[Any, Any], Tensor]
_RISING = 0.75  # the share of moves that must raise the loss for the step size to stay
_MOMENTUM = 0.25  # the weight of the move before


@labeled("to_the_edge")
def to_the_edge(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
    """Begin at uniform noise stretched until its largest pixel is at the radius (l∞), else as the threat model does."""
    if not isinstance(threat, Linf):
        return threat.noise(x, rng)
    noise = 2 * rng.uniform(x) - 1
    largest = noise.abs().flatten(1).amax(1)
    return threat.project(x + broadcast_per_image(radius_per_image(threat, x) / largest) * noise, x)


@labeled("misclassified")
def misclassified(logits: Tensor, target: Tensor) -> Tensor:
    """Whether each image is taken for another class than its label, `(B,)`: pairs `(B, 2)` begin with the label."""
    return logits.argmax(1) != (target if target.ndim == 1 else target[:, 0])


@labeled("never")
def never(prediction: Any, target: Any) -> Tensor:
    """No image counts as lost: for losses that are not about labels, so that the loss alone decides."""
    return torch.tensor(False)


@labeled("targeted_dlr")
def targeted_dlr(logits: Tensor, pair: Tensor) -> Tensor:
    """The wanted class's lead over the right one, over the spread of the largest logits, blind to their scale: `(B,)`.

    Needs four classes or more. Source: Croce and Hein, 2003.01690, Eq. 7.

    Args:
        logits: `(B, K)`.
        pair: the right class, then the wanted one, `(B, 2)` int64.
    """
    right, wanted = logits.gather(1, pair).unbind(1)
    ranked = logits.topk(4, dim=1).values
    return (wanted - right) / (ranked[:, 0] - (ranked[:, 2] + ranked[:, 3]) / 2 + 1e-12)


@dataclass(frozen=True, repr=False)
class APGD:
    """PGD with momentum that halves its step and goes back to the best image whenever it stops getting on.

    The result is the last lost image that was met, as in the authors' code, and where none was, the one of highest
    loss (their code then gives back the clean image).

    Args:
        threat: where the attack must stay.
        steps: number of gradients. The start's is one of them, which the authors do not count: their 100 are 101 here.
        loss: what to maximize, `(prediction, target) -> (B,)`; `targeted_dlr` takes pairs of classes as target.
        start: where to begin, `(threat, x, draw) -> x_adv`.
        lost: `(prediction, target) -> (B,)` bool, which images are broken; `never` leaves it to the loss.

    Source: Croce and Hein, 2003.01690, Algorithm 1.
    """

    threat: ThreatModel
    steps: int
    loss: Loss = ce
    start: Start = to_the_edge
    lost: Lost = misclassified

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise InputError(f"APGD with {self.steps} steps never moves: give at least 2, the start's and one more.")

    def __str__(self) -> str:
        names = ", ".join(f"{field}={label_of(getattr(self, field))}" for field in ("loss", "start", "lost"))
        return f"APGD-{self.steps}({self.threat}, {names})"

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        """Adversarial images: lost ones where the attack met any, else those of highest loss.

        Args:
            f: what the attacker sees, image batch to prediction; its modes are borrowed and given back.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: what the loss compares with, usually the labels `(B,)`.
            rng: where the random start comes from.
        """
        return run_attack(self, f, x, target, rng)

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """The start, twice the radius as step size, and empty memories."""
        x_adv, none = self.start(self.threat, x, rng), torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return {
            **dict.fromkeys(("x_adv", "x_before", "x_best", "x_lost"), x_adv),
            **dict.fromkeys(("taken", "since", "rises"), none),  # gradients; moves and rises since the last checkpoint
            "interval": none + max(int(0.22 * self.steps), 1),
            "size": 2 * radius_per_image(self.threat, x),
            "best_gradient": torch.zeros_like(x),
            # The authors' code compares the loss after the first move with zero; so does this, for equal verdicts.
            "before": x.new_zeros(len(x)),
            **dict.fromkeys(("best", "best_at_check"), x.new_full((len(x),), -torch.inf)),
            "lost": none > 0,
            "halved": none == 0,
        }

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """A gradient, a look at how the loss gets on, and a move."""
        x_adv = state["x_adv"].detach().requires_grad_()
        with torch.enable_grad():
            prediction = f(x_adv)
            loss = self.loss(prediction, target)
        gradient = torch.autograd.grad(loss.sum(), x_adv)[0]
        with torch.no_grad():
            state = _remembered(state, loss.detach(), gradient, self.lost(prediction, target).to(x.device))
            state, gradient = self._checked(state, gradient)
            return self._moved(state, gradient, x)

    def finish(self, state: State) -> Tensor:
        """The last lost image met, else the one of highest loss."""
        return torch.where(broadcast_per_image(state["lost"]), state["x_lost"], state["x_best"])

    def _checked(self, state: State, gradient: Tensor) -> tuple[State, Tensor]:
        """At each image's checkpoint: halve its step and go back to its best image unless the loss got on."""
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

    def _moved(self, state: State, gradient: Tensor, x: Tensor) -> State:
        """A projected step along the gradient, mixed with the move before it, projected again."""
        x_adv = state["x_adv"]
        stepped = self.threat.project(x_adv + self.threat.step(gradient, state["size"]), x)
        weight = broadcast_per_image(_MOMENTUM * (state["taken"] > 1).to(x.dtype))
        mixed = x_adv + (stepped - x_adv) * (1 - weight) + (x_adv - state["x_before"]) * weight
        return state | {"x_adv": self.threat.project(mixed, x), "x_before": x_adv}


def _remembered(state: State, loss: Tensor, gradient: Tensor, lost: Tensor) -> State:
    """What the newest loss and gradient say, written into the memories of each image."""
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
        "lost": state["lost"] | lost,
        "x_lost": torch.where(broadcast_per_image(lost), x_adv, state["x_lost"]),
    }
