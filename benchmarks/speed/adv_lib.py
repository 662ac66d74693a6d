"""Serve adv-lib: pgd_linf and apgd."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from benchmarks.peers.baselines import repair_torchvision
from benchmarks.speed.baseline_worker import serve_baseline
from benchmarks.speed.cases import AttackCase
from forefend.runtime.rng import KeyedRNG


def attack(network: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
    """Run PGD, whose restarts attack the robust images only, or APGD, whose start counts as a step here."""
    repair_torchvision()
    library = import_module("adv_lib.attacks")
    radius = case.model.threat.radius
    if case.apgd:
        pgd = import_module("adv_lib.attacks.auto_pgd").apgd
        return pgd(network, x, y, radius, float("inf"), n_iter=case.steps - 1, loss_function="ce")
    settings = {"steps": case.steps, "restarts": case.restarts, "absolute_step_size": radius / 4}
    return library.pgd_linf(network, x, y, radius, **settings)


if __name__ == "__main__":
    serve_baseline("adv-lib", "adv-lib", attack)
