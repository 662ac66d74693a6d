"""Run a trial over many images: every attack to its last step, or each image until success.

An image counts as misclassified only if the evaluated model itself misclassifies an image that the
threat model allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from forefend.attacks.base import Attack, Iterative, State, at_step
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.rng import KeyedRNG, torch_seed
from forefend.threat_models.base import ThreatModel

OVERSHOOT = 1e-6  # an image that leaves its threat model by no more is projected and evaluated again
Verdicts = tuple[list[int], list[bool]]  # dataset index and whether misclassified, of images that are finished


@dataclass(frozen=True)
class Job:
    """One trial against one model.

    Args:
        name: the key of the trial's random numbers.
        attack: an attack made for `threat`.
        threat: the threat model that adversarial images must obey.
        restarts: attempts with different starts.
        f: the function that the attack is given.
        misclassified: `(x_adv, y, index) -> (B,)` bool, by the evaluated model.
        fetch: row numbers to images `(B, C, H, W)`, labels and dataset index.
        batch_size: images in a batch, halved when memory runs out.
        seed: the seed of the evaluation.
        starts: images of an earlier attack, from which this one goes on, by dataset index; empty for none.
        nearest: if given, receives the images that the attack ended with where it failed, by dataset index.
    """

    name: str
    attack: Attack
    threat: ThreatModel
    restarts: int
    f: Callable[[Tensor], Any]
    misclassified: Callable[[Tensor, Tensor, Tensor], Tensor]
    fetch: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    batch_size: AdaptiveBatchSize
    seed: int
    starts: Mapping[int, Tensor] = field(default_factory=dict)
    nearest: dict[int, Tensor] | None = None

    def succeeds(self, x_adv: Tensor, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Return whether each image is misclassified, `(B,)`, after the threat model is checked."""
        return self.misclassified(obey(self.threat, x_adv, x, self.name), y, index)


Run = Callable[[Job, Tensor], Iterator[Verdicts]]


def run_all_steps(job: Job, rows: Tensor) -> Iterator[Verdicts]:
    """Attack whole batches to the last step and evaluate what the attack returns, as the papers do.

    Args:
        job: what to run.
        rows: row numbers of the images; batches are cut in this order.
    """

    def attack(part: Tensor) -> Verdicts:
        x, y, index = job.fetch(part)
        misclassified = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        with trial_seed(job.name, index, job.seed):
            for restart in range(job.restarts):
                robust = (~misclassified).nonzero().squeeze(1)
                if not len(robust):
                    break
                x_now, y_now = x[robust], y[robust]
                rng = KeyedRNG(index[robust], job.seed, job.name, restart)
                x_adv = job.attack(job.f, x_now, y_now, rng=rng)
                misclassified[robust] = job.succeeds(x_adv, x_now, y_now, index[robust])
        return index.tolist(), misclassified.tolist()

    return job.batch_size.map(rows, attack)


def stop_at_success(job: Job, rows: Tensor) -> Iterator[Verdicts]:
    """Attack each image until an iterate is misclassified; another image takes its place.

    Iterates that `f` misclassifies are evaluated by the model itself, so `f` may compute in low
    precision. An image that is never misclassified has gone through every step of every
    restart, unless the attack says before that it is exhausted.

    Args:
        job: what to run; its attack has steps, and `f` returns logits.
        rows: row numbers of the images, which enter in this order.
    """
    attack = cast(Iterative, job.attack)
    waiting, pool = rows, None
    with eval_and_no_grad(job.f):
        while len(waiting) or pool is not None:
            size = job.batch_size.size
            if pool is None or len(pool) <= size - max(1, size // 8):
                free = max(1, size - (len(pool) if pool else 0))
                entering, waiting = waiting[:free], waiting[free:]
                pool = _concatenated([part for part in (pool, _started(job, attack, entering)) if part is not None])
            members = torch.arange(len(pool), device=pool.x.device)
            pool = _concatenated(list(job.batch_size.map(members, partial(_advanced, job, attack, pool))))
            done = pool.misclassified | (pool.restart == job.restarts)
            if bool(done.any()):
                yield pool.index[done].tolist(), pool.misclassified[done].tolist()
                pool = pool.select(~done) if not bool(done.all()) else None


@dataclass(frozen=True)
class _Pool:
    """Images under attack, each at a restart and step of its own."""

    x: Tensor
    y: Tensor
    index: Tensor
    restart: Tensor
    step: Tensor
    misclassified: Tensor
    state: State

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: Tensor) -> _Pool:
        """Return some of the images, by row number or mask."""
        state = {name: tensor[rows] for name, tensor in self.state.items()}
        return _Pool(**{name: getattr(self, name)[rows] for name in _TENSORS}, state=state)


_TENSORS = ("x", "y", "index", "restart", "step", "misclassified")


def _concatenated(pools: list[_Pool]) -> _Pool:
    if len(pools) == 1:
        return pools[0]
    state = {name: torch.cat([pool.state[name] for pool in pools]) for name in pools[0].state}
    return _Pool(**{name: torch.cat([getattr(pool, name) for pool in pools]) for name in _TENSORS}, state=state)


def _started(job: Job, attack: Iterative, rows: Tensor) -> _Pool | None:
    """Return images at the start of their first attempt."""
    if not len(rows):
        return None
    x, y, index = job.fetch(rows)
    zero = torch.zeros_like(index)
    rng = KeyedRNG(index, job.seed, job.name)
    if job.starts and isinstance(attack, Iterative):
        state = attack.go_on(x, torch.stack([job.starts[number] for number in index.tolist()]), rng)
    else:
        state = attack.begin(x, rng)
    return _Pool(x, y, index, zero, zero, zero.bool(), state)


def _advanced(job: Job, attack: Iterative, pool: _Pool, rows: Tensor) -> _Pool:
    """Return some of the pool after one more step; finished attempts are restarted."""
    if len(rows) < len(pool):
        pool = pool.select(rows)
    f = _Recorder(job.f)
    rng = at_step(KeyedRNG(pool.index, job.seed, job.name, pool.restart), attack, pool.step)
    state = attack.advance(f, pool.state, pool.x, pool.y, rng=rng)
    pool = replace(pool, state=state, step=pool.step + 1, misclassified=_by_iterates(job, pool, f.calls))
    # An attack of one's own may have steps without being Iterative.
    last, spent = pool.step == attack.steps, attack.exhausted(state) if isinstance(attack, Iterative) else None
    ended = ((last if spent is None else last | spent) & ~pool.misclassified).nonzero().squeeze(1)
    return _restarted(job, attack, pool, ended) if len(ended) else pool


def _restarted(job: Job, attack: Iterative, pool: _Pool, ended: Tensor) -> _Pool:
    """Evaluate the images whose attempt has ended and start the next attempt of the robust ones."""
    own = pool.select(ended)
    misclassified, restart, step = pool.misclassified.clone(), pool.restart.clone(), pool.step.clone()
    x_adv = attack.finish(own.state).detach()
    misclassified[ended] = job.succeeds(x_adv, own.x, own.y, own.index)
    if job.nearest is not None:
        robust = ~misclassified[ended]
        job.nearest.update(zip(own.index[robust].tolist(), x_adv[robust], strict=True))
    restart[ended] += 1
    again = ended[~misclassified[ended] & (restart[ended] < job.restarts)]
    step[again] = 0
    state = pool.state
    if len(again):
        new = attack.begin(pool.x[again], KeyedRNG(pool.index[again], job.seed, job.name, restart[again]))
        state = {name: tensor.index_copy(0, again, new[name].to(tensor.dtype)) for name, tensor in state.items()}
    return replace(pool, misclassified=misclassified, restart=restart, step=step, state=state)


class _Recorder:
    """A function that keeps its inputs and outputs."""

    def __init__(self, f: Callable[[Tensor], Any]) -> None:
        self.f = f
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Any:
        output = self.f(x)
        self.calls.append((x.detach(), output.detach()))
        return output


def _by_iterates(job: Job, pool: _Pool, calls: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return which images are misclassified at an iterate just computed, `(B,)`."""
    misclassified = pool.misclassified.clone()
    for x_adv, logits in calls:
        wrong = (logits.argmax(1) != pool.y) | ~logits.isfinite().all(1)  # the model itself refuses NaN
        rows = (wrong & ~misclassified).nonzero().squeeze(1)
        rows = rows[job.threat.allows(x_adv[rows], pool.x[rows])] if len(rows) else rows
        if len(rows):
            misclassified[rows] = job.misclassified(x_adv[rows], pool.y[rows], pool.index[rows])
    return misclassified


def obey(threat: ThreatModel, x_adv: Tensor, x: Tensor, trial: str) -> Tensor:
    """Return adversarial images with those projected that leave the threat model by rounding.

    Args:
        threat: the threat model.
        x_adv: images that the attack returned, `(B, C, H, W)`.
        x: the clean images.
        trial: identity of the trial, for the message.

    Raises:
        RuntimeError: an image is NaN, or further outside than rounding explains.
    """
    excess = threat.excess(x_adv, x)
    if not bool((excess <= OVERSHOOT).all()):
        raise RuntimeError(
            f"{trial} left its threat model {threat} by {float(excess.max()):.2g}: its verdicts would be worthless, so "
            "none was recorded for this batch."
        )
    outside = ~threat.allows(x_adv, x)
    if not bool(outside.any()):
        return x_adv
    return torch.where(outside.view(-1, 1, 1, 1), threat.project(x_adv, x), x_adv)


def trial_seed(name: str, index: Tensor, seed: int) -> AbstractContextManager[None]:
    """Seed torch's own generators from a trial and its images, equally after a resume.

    Args:
        name: the key of the trial's random numbers.
        index: dataset index of the images, at least one.
        seed: the seed of the evaluation.
    """
    return torch_seed(KeyedRNG(index, seed, f"{name}|{index[0]}").integer())
