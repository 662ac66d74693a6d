"""torchattacks as a subject of the bench: PGD, APGD, and PGD again for those that stand."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from benchmarks.speed.benchmarks import attacks
from benchmarks.speed.cases import AttackCase
from forefend.runtime.rng import KeyedRNG

from ..peers.peers import mend_torchvision, torchattacks
from .crafts import pgd, serve_peer


def craft(network: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
    """PGD, restarts by its MultiAttack, which leaves out what is broken; APGD, whose start counts as a step here."""
    mend_torchvision()
    library = import_module("torchattacks")
    radius = assault.on.threat.radius
    if assault.apgd:
        return library.APGD(network, eps=radius, steps=assault.steps - 1)(x, y)
    if assault.restarts == 1:
        return pgd(torchattacks)(network, x, y, assault, rng)
    one = library.PGD(network, eps=radius, alpha=radius / 4, steps=assault.steps, random_start=True)
    return library.MultiAttack([one] * assault.restarts)(x, y)


if __name__ == "__main__":
    prepared = {(attacks.NAME, attacks.ON_OURS): attacks.maker(craft, "bf16")}
    serve_peer("torchattacks", "torchattacks", craft, prepared)
