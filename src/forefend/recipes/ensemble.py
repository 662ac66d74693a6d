"""Which guides a training step uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from forefend.models.guide import Guide
from forefend.runtime.labels import labeled
from forefend.runtime.rng import KeyedRNG

Policy = Callable[[Sequence[Guide], KeyedRNG], Sequence[Guide]]


@labeled("every")
def every(guides: Sequence[Guide], rng: KeyedRNG) -> Sequence[Guide]:
    """All guides at every step (RTFE-ensemble, 2209.06931, Eqs. 8 and 9)."""
    return guides


@labeled("sampled")
def sampled(guides: Sequence[Guide], rng: KeyedRNG) -> Sequence[Guide]:
    """One guide at each step, drawn uniformly (AAA, and the ensembles of Robustifier)."""
    return [guides[rng.fold_in(purpose="guide").integer() % len(guides)]]


@labeled("in_turn")
def in_turn(guides: Sequence[Guide], rng: KeyedRNG) -> Sequence[Guide]:
    """The next guide at each step."""
    return [guides[int(rng.step) % len(guides)]]
