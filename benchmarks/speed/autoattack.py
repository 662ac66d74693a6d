"""AutoAttack's APGD as a subject of the bench, from pyautoattack, its packaged code."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from benchmarks.speed.cases import AttackCase
from forefend.runtime.rng import KeyedRNG

from .crafts import serve_peer


def craft(network: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
    """APGD on the cross-entropy; its start counts as a step here, and what is misclassified already is left out."""
    library = import_module("pyautoattack.autopgd_base")
    attack = library.APGDAttack(network, n_iter=assault.steps - 1, eps=assault.on.threat.radius, device=x.device)
    return attack.perturb(x, y)


if __name__ == "__main__":
    serve_peer("AutoAttack", "pyautoattack", craft)
