"""What the peers' processes share: an attack of theirs on a case of ours, set up as ours is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata

import torch
from torch import Tensor, nn

from benchmarks.speed.benchmarks import attacks, early_stopping
from benchmarks.speed.benchmarks.attacks import Craft, judged
from benchmarks.speed.cases import AttackCase, read
from benchmarks.speed.results import Maker, Outcome, Work
from benchmarks.speed.timing import timed
from benchmarks.speed.worker import serve
from forefend.runtime.profiling import count_compute
from forefend.runtime.rng import KeyedRNG

from ..peers.peers import Craft as Step
from ..peers.peers import mend_torchvision

__all__ = ["every_restart", "mend_torchvision", "pgd", "serve_peer"]


def pgd(craft: Step) -> Craft:
    """One of `benchmarks.peers`' attackers, told our settings."""

    def attacked(network: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
        return craft(network, x, y, assault.ours(), rng)  # type: ignore[arg-type]

    return attacked


def repeated(craft: Callable[..., Tensor]) -> Craft:
    """The same, its library's own restarts told how many the case has."""

    def attacked(network: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
        return craft(network, x, y, assault.ours(), rng, restarts=assault.restarts)

    return attacked


def until_end(craft: Craft, case: str) -> Work:
    """A peer's attack over more images than go at once, batch by batch, with as many restarts as the case has."""
    assault = read(case)
    network = assault.on.network()
    x, y, index = assault.on.images(assault.count)

    def attacked() -> Tensor:
        rows = torch.arange(len(x)).split(early_stopping.ROOM)
        return torch.cat([craft(network, x[r], y[r], assault, KeyedRNG(index[r], 0, case)).detach() for r in rows])

    def run() -> Outcome:
        torch.manual_seed(0)
        x_adv, seconds = timed(attacked)
        return {"seconds": seconds, **about, **judged(network, x_adv, x, y, assault)}

    torch.manual_seed(0)
    cost = count_compute(attacked, network)
    about = {"images": len(x), "gradients": cost.gradients / len(x), "forwards": cost.forwards / len(x)}
    return run


def every_restart(name: str, craft: Callable[..., Tensor]) -> dict[tuple[str, str], Maker]:
    """What a peer does natively with restarts, as a subject of its own.

    Args:
        name: of the subject.
        craft: its attack, which takes `restarts`.
    """
    return {(early_stopping.NAME, name): lambda case: until_end(repeated(craft), case)}


def serve_peer(name: str, package: str, craft: Craft, more: Mapping[tuple[str, str], Maker] | None = None) -> None:
    """Serve a peer's attack.

    Args:
        name: of the subject.
        package: distribution that it comes from.
        craft: its attack.
        more: what else it can do.
    """
    own = {
        (attacks.NAME, name): attacks.maker(craft),
        (early_stopping.NAME, name): lambda case: until_end(craft, case),
    }
    serve(own | dict(more or {}), {"torch": torch.__version__, package: metadata.version(package)})
