"""Short runs of Auto-PGD in turn, each with another loss or target class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from forefend.attacks.auto_pgd import APGD
from forefend.attacks.base import Iterative, State, ThreatField, loss_and_gradient
from forefend.attacks.pgd import from_x
from forefend.checks import InputError
from forefend.losses import ce, dlr, margin, probability_margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel, broadcast_per_image

_TARGETED = 1  # the turn of the targeted margin
Towards = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, target classes) -> (B,)


def targeted_margin(logits: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    """Return the logit of a chosen wrong class minus the correct one, `(B,)`."""
    other, right = logits.gather(1, torch.stack((wanted, y), 1)).unbind(1)
    return other - right


def _ce(logits: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    return ce(logits, y)


def _probability_margin(logits: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    return probability_margin(logits, y)


def _dlr(logits: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    return dlr(logits, y)


def _margin(logits: Tensor, y: Tensor, wanted: Tensor) -> Tensor:
    return margin(logits, y)


@dataclass(frozen=True, repr=False)
class APGDRotation(Iterative):
    """Runs of APGD in turn: every other one on cross-entropy, the others on three further losses.

    These are the margin to one class, the margin of probabilities, and DLR. The first run starts at the image, the
    others at noise of their own. A run towards a class takes the likeliest wrong class, as judged at the nearest
    iterate, that was not tried yet; when all were tried, it begins anew. With two classes, where DLR is constant, the
    margin takes its place. Short runs try many starts, and long ones converge. The result is the iterate of largest
    margin.

    Args:
        threat: threat model, by name or as an object.
        classes: number of logits, at least 2.
        lengths: gradients of the runs in turn, at least 2 each.
        repeats: how often the lengths are repeated.

    Raises:
        InputError: a number is too small, or the function returns another number of logits.

    Source: APGD is Croce and Hein's (2003.01690), the margin of probabilities PMA's (2411.15210).
    """

    threat: ThreatField[ThreatModel] = ThreatField()
    classes: int = 10
    lengths: tuple[int, ...] = (20, 40)
    repeats: int = 12
    loss = staticmethod(ce)  # of the first run; all take labels

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise InputError(f"APGDRotation has {self.classes} classes: give at least 2.")
        if not self.lengths or min(self.lengths) < 2 or self.repeats < 1:
            runs = f"{self.repeats} times runs of {self.lengths} gradients"
            raise InputError(f"APGDRotation has {runs}: give at least one run, of at least 2.")

    def __str__(self) -> str:
        last = "dlr" if self.classes > 2 else "margin"
        losses = f"ce, targeted_margin, ce, probability_margin, ce, {last}"
        runs = f"{'+'.join(map(str, self.lengths))} x{self.repeats}"
        return f"APGDRotation-{self.steps}({self.threat}, {self.classes} classes, {losses}, {runs})"

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Number of gradients."""
        return sum(self.lengths) * self.repeats

    def begin(self, x: Tensor, rng: KeyedRNG) -> State:
        """Return the start of the first run, at the image itself."""
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return {
            **APGD(self.threat, self.lengths[0], start=from_x).begin(x, rng),
            "run": none,
            "wanted": none,
            "tried": torch.zeros(len(x), self.classes, dtype=torch.bool, device=x.device),
            "nearest": x.new_full((len(x),), -torch.inf),
            "x_nearest": x,
            "nearest_logits": x.new_zeros(len(x), self.classes),
        }

    def advance(self, f: Callable[[Tensor], Any], state: State, x: Tensor, target: Any, *, rng: KeyedRNG) -> State:
        """Take a step of the current run, and begin the next one where it has ended."""
        towards = (target, state["wanted"], state["run"])
        logits, loss, gradient = loss_and_gradient(f, state["x_adv"], towards, self._loss, attack=self, index=rng.index)
        with torch.no_grad():
            state = _nearest(state, logits.detach(), target)
            never = torch.zeros_like(target, dtype=torch.bool)
            for apgd, rows in self._by_length(state["run"]):
                followed = apgd.follow(_some(state, rows), loss[rows], gradient[rows], never[rows], x[rows])
                state = _replaced(state, rows, followed)
            last = state["run"] == len(self.lengths) * self.repeats - 1
            ended = (state["taken"] == self._length(state["run"])) & ~last
            return self._next_run(state, x, target, rng, ended.nonzero().squeeze(1)) if bool(ended.any()) else state

    def finish(self, state: State) -> Tensor:
        """Return the iterate of largest margin."""
        return state["x_nearest"]

    def _loss(self, logits: Tensor, towards: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the loss of each image's own run, `(B,)`."""
        if logits.shape[1:] != (self.classes,):
            raise InputError(
                f"The classifier returns shape {tuple(logits.shape)}, expected {(len(logits), self.classes)}: pass its "
                "number of logits as classes."
            )
        y, wanted, run = towards
        losses = logits.new_zeros(len(logits))
        for turn, loss in enumerate(self._losses()):
            rows = (run % len(self._losses()) == turn).nonzero().squeeze(1)
            if len(rows):
                losses = losses.index_copy(0, rows, loss(logits[rows], y[rows], wanted[rows]).to(losses.dtype))
        return losses

    def _losses(self) -> tuple[Towards, ...]:
        """Return the losses in turn: every other run is on cross-entropy, whose starts differ most."""
        last = _dlr if self.classes > 2 else _margin
        return _ce, targeted_margin, _ce, _probability_margin, _ce, last

    def _next_run(self, state: State, x: Tensor, y: Tensor, rng: KeyedRNG, ended: Tensor) -> State:
        """Begin the next run of some images, at noise."""
        own, run = _some(state, ended), state["run"][ended] + 1
        tried = own["tried"] & (own["tried"].sum(1) < self.classes - 1)[:, None]
        wrong = own["nearest_logits"].scatter(1, y[ended, None], -torch.inf).masked_fill(tried, -torch.inf)
        wanted = wrong.argmax(1)
        chosen = F.one_hot(wanted, self.classes).bool() & (run % len(self._losses()) == _TARGETED)[:, None]
        state = _replaced(state, ended, {"run": run, "wanted": wanted, "tried": tried | chosen})
        for apgd, rows in self._by_length(run):
            some = ended[rows]
            state = _replaced(state, some, apgd.begin(x[some], rng.select(some)))
        return state

    def _length(self, run: Tensor) -> Tensor:
        """Return the number of gradients of a run, for each image."""
        return torch.tensor(self.lengths, device=run.device)[run % len(self.lengths)]

    def _by_length(self, run: Tensor) -> Iterator[tuple[APGD, Tensor]]:
        """Yield an APGD for each length of run, and the rows that take it."""
        length = self._length(run)
        for each in sorted(set(length.tolist())):
            yield APGD(self.threat, each), (length == each).nonzero().squeeze(1)


def _some(state: State, rows: Tensor) -> State:
    return {name: tensor[rows] for name, tensor in state.items()}


def _replaced(state: State, rows: Tensor, new: State) -> State:
    return state | {name: state[name].index_copy(0, rows, tensor.to(state[name].dtype)) for name, tensor in new.items()}


def _nearest(state: State, logits: Tensor, y: Tensor) -> State:
    """Keep the iterate of largest margin, and its logits."""
    found = margin(logits, y)
    nearer = found > state["nearest"]
    return state | {
        "nearest": torch.where(nearer, found, state["nearest"]),
        "x_nearest": torch.where(broadcast_per_image(nearer), state["x_adv"], state["x_nearest"]),
        "nearest_logits": torch.where(nearer[:, None], logits, state["nearest_logits"]),
    }
