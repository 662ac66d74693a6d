"""adv-lib as a subject of the bench: pgd_linf and apgd."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from benchmarks.speed.cases import AttackCase
from forefend.runtime.rng import KeyedRNG

from .crafts import mend_torchvision, serve_peer


def craft(network: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
    """PGD with restarts on what stands, and APGD, whose start counts as a step here; they keep the last lost image."""
    mend_torchvision()
    library = import_module("adv_lib.attacks")
    radius = assault.on.threat.radius
    if assault.apgd:
        pgd = import_module("adv_lib.attacks.auto_pgd").apgd
        return pgd(network, x, y, radius, float("inf"), n_iter=assault.steps - 1, loss_function="ce")
    settings = {"steps": assault.steps, "restarts": assault.restarts, "absolute_step_size": radius / 4}
    return library.pgd_linf(network, x, y, radius, **settings)


if __name__ == "__main__":
    serve_peer("adv-lib", "adv-lib", craft)
