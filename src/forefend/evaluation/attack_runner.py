"""Running: how a trial is carried out over many images, each attacked to the end or only until it is lost.

Whatever the attack computes with, what counts is the verdict of the network itself on an image that its threat model
allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from forefend.attacks.base import Attack, Iterative, State, at_step
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.rng import KeyedRNG, torch_seed
from forefend.threat_models.base import ThreatModel

OVERSHOOT = 1e-6  # an image that leaves its threat model by no more is projected and judged again
Verdicts = tuple[list[int], list[bool]]  # dataset index and whether lost, of the images that are done with


@dataclass(frozen=True)
class Job:
    """One trial against one subject.

    Args:
        name: the trial's identity, of which its random numbers are made.
        attack: made for `threat`.
        threat: what the adversarial images must obey.
        restarts: attempts with different starts.
        f: what the attacker sees.
        wrong: `(x_adv, y) -> (B,)` bool, the subject's own verdict.
        fetch: row numbers to images `(B, C, H, W)`, labels and dataset index.
        room: how many images go at once.
        seed: of the attack's random numbers.
    """

    name: str
    attack: Attack
    threat: ThreatModel
    restarts: int
    f: Callable[[Tensor], Any]
    wrong: Callable[[Tensor, Tensor], Tensor]
    fetch: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    room: AdaptiveBatchSize
    seed: int

    def lost(self, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The verdict `(B,)` on images that an attack returned, those that overshoot by rounding projected back."""
        return self.wrong(obey(self.threat, x_adv, x, self.name), y)


Run = Callable[[Job, Tensor], Iterator[Verdicts]]


def run_all_steps(job: Job, rows: Tensor) -> Iterator[Verdicts]:
    """Attack whole batches, every image to its last step, and judge what the attack returns, as the papers do.

    Args:
        job: what to run.
        rows: row numbers of the images, in order; batches are cut in this order.
    """

    def attacked(part: Tensor) -> Verdicts:
        x, y, index = job.fetch(part)
        lost = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        with trial_seed(job.name, index, job.seed):
            for restart in range(job.restarts):
                standing = (~lost).nonzero().squeeze(1)
                if not len(standing):
                    break
                x_now, y_now = x[standing], y[standing]
                rng = KeyedRNG(index[standing], job.seed, job.name, restart)
                x_adv = job.attack(job.f, x_now, y_now, rng=rng)
                lost[standing] = job.lost(x_adv, x_now, y_now)
        return index.tolist(), lost.tolist()

    return job.room.map(rows, attacked)


def stop_at_success(job: Job, rows: Tensor) -> Iterator[Verdicts]:
    """Attack each image until an iterate is misclassified; it then leaves the batch and another takes its place.

    What the attack's own forward passes show to be misclassified is asked of the subject itself, so that `f` may
    compute in low precision: it proposes, and the subject decides. An image that stands at the last step of its last
    restart has survived every iterate.

    Args:
        job: what to run; its attack goes step by step, and `f` returns logits.
        rows: row numbers of the images; in this order they enter.
    """
    attack = cast(Iterative, job.attack)
    waiting, pool = rows, None
    with eval_and_no_grad(job.f):
        while len(waiting) or pool is not None:
            if pool is None or len(pool) <= job.room.size - max(1, job.room.size // 8):
                free = max(1, job.room.size - (len(pool) if pool else 0))
                entering, waiting = waiting[:free], waiting[free:]
                pool = _joined([part for part in (pool, _entered(job, attack, entering)) if part is not None])
            everyone = torch.arange(len(pool), device=pool.x.device)
            pool = _joined(list(job.room.map(everyone, partial(_stepped, job, attack, pool))))
            done = pool.lost | (pool.restart == job.restarts)
            if bool(done.any()):
                yield pool.index[done].tolist(), pool.lost[done].tolist()
                pool = pool.select(~done) if not bool(done.all()) else None


@dataclass(frozen=True)
class _Pool:
    """Images under attack, each at a restart and step of its own."""

    x: Tensor
    y: Tensor
    index: Tensor
    restart: Tensor
    step: Tensor
    lost: Tensor
    state: State

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Tensor) -> _Pool:
        """Some of them, by row number or mask."""
        state = {name: tensor[rows] for name, tensor in self.state.items()}
        return _Pool(**{name: getattr(self, name)[rows] for name in _TENSORS}, state=state)


_TENSORS = ("x", "y", "index", "restart", "step", "lost")


def _joined(pools: list[_Pool]) -> _Pool:
    if len(pools) == 1:
        return pools[0]
    state = {name: torch.cat([pool.state[name] for pool in pools]) for name in pools[0].state}
    return _Pool(**{name: torch.cat([getattr(pool, name) for pool in pools]) for name in _TENSORS}, state=state)


def _entered(job: Job, attack: Iterative, rows: Tensor) -> _Pool | None:
    """Images at the beginning of their first attempt."""
    if not len(rows):
        return None
    x, y, index = job.fetch(rows)
    zero = torch.zeros_like(index)
    state = attack.begin(x, KeyedRNG(index, job.seed, job.name))
    return _Pool(x, y, index, zero, zero, zero.bool(), state)


def _stepped(job: Job, attack: Iterative, pool: _Pool, rows: Tensor) -> _Pool:
    """Some of the pool one step further; who has finished an attempt is judged, and begins the next."""
    if len(rows) < len(pool):
        pool = pool.select(rows)
    watched = _Watched(job.f)
    rng = at_step(KeyedRNG(pool.index, job.seed, job.name, pool.restart), attack, pool.step)
    state = attack.advance(watched, pool.state, pool.x, pool.y, rng=rng)
    pool = replace(pool, state=state, step=pool.step + 1, lost=_caught(job, pool, watched.seen))
    ended = ((pool.step == attack.steps) & ~pool.lost).nonzero().squeeze(1)
    if len(ended):
        pool = _judged(job, attack, pool, ended)
    return pool


def _judged(job: Job, attack: Iterative, pool: _Pool, ended: Tensor) -> _Pool:
    """The verdict on those whose attempt has ended; those that stand begin their next attempt."""
    own = pool.select(ended)
    lost, restart = pool.lost.clone(), pool.restart.clone()
    lost[ended] = job.lost(attack.finish(own.state).detach(), own.x, own.y)
    restart[ended] += 1
    again = ended[~lost[ended] & (restart[ended] < job.restarts)]
    step = pool.step.clone()
    step[again] = 0
    state = pool.state
    if len(again):
        begun = attack.begin(pool.x[again], KeyedRNG(pool.index[again], job.seed, job.name, restart[again]))
        state = {name: tensor.index_copy(0, again, begun[name]) for name, tensor in state.items()}
    return replace(pool, lost=lost, restart=restart, step=step, state=state)


class _Watched:
    """What the attacker sees, remembering what was asked and answered."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        self.f = f
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Any:
        prediction = self.f(x)
        self.seen.append((x.detach(), prediction.detach()))
        return prediction


def _caught(job: Job, pool: _Pool, seen: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Who is lost by an image that the attack has just looked at, and that the subject misclassifies too: `(B,)`."""
    lost = pool.lost.clone()
    for x_adv, logits in seen:
        suspects = ((logits.argmax(1) != pool.y) & ~lost).nonzero().squeeze(1)
        suspects = suspects[job.threat.allows(x_adv[suspects], pool.x[suspects])] if len(suspects) else suspects
        if len(suspects):
            lost[suspects] = job.wrong(x_adv[suspects], pool.y[suspects])
    return lost


def obey(threat: ThreatModel, x_adv: Tensor, x: Tensor, trial: str) -> Tensor:
    """The adversarial images, those that overshoot by rounding projected back.

    Args:
        threat: what they must obey.
        x_adv: what the attack returned.
        x: the clean images.
        trial: whose attack it was, for the message.

    Raises:
        RuntimeError: an image lies further outside than rounding explains, or is NaN.
    """
    excess = threat.excess(x_adv, x)
    if not bool((excess <= OVERSHOOT).all()):
        raise RuntimeError(
            f"{trial} left its threat model {threat} by {float(excess.max()):.2g}: "
            "its verdicts would be worthless, so none was recorded for this batch."
        )
    outside = ~threat.allows(x_adv, x)
    if not bool(outside.any()):
        return x_adv
    return torch.where(outside.view(-1, 1, 1, 1), threat.project(x_adv, x), x_adv)


def trial_seed(name: str, index: Tensor, seed: int) -> AbstractContextManager[None]:
    """Give torch's own generators a state made of a trial and its images, so that chance is the same when resumed.

    Args:
        name: the trial's identity.
        index: dataset index of the images, at least one.
        seed: of the evaluation.
    """
    return torch_seed(KeyedRNG(index, seed, f"{name}|{index[0]}").integer())
