"""Serve torchattacks: PGD, APGD, and PGD with restarts on the robust images."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from benchmarks.peers.baselines import repair_torchvision, torchattacks
from benchmarks.speed.baseline_worker import pgd, serve_baseline
from benchmarks.speed.benchmarks import attacks
from benchmarks.speed.cases import AttackCase
from forefend.runtime.rng import KeyedRNG


def attack(network: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
    """Run PGD, with restarts by MultiAttack, which attacks the robust images only; or APGD, whose start is a step."""
    repair_torchvision()
    library = import_module("torchattacks")
    radius = case.model.threat.radius
    if case.apgd:
        return library.APGD(network, eps=radius, steps=case.steps - 1)(x, y)
    if case.restarts == 1:
        return pgd(torchattacks)(network, x, y, case, rng)
    one = library.PGD(network, eps=radius, alpha=radius / 4, steps=case.steps, random_start=True)
    return library.MultiAttack([one] * case.restarts)(x, y)


if __name__ == "__main__":
    optimized = {(attacks.NAME, attacks.ON_OURS): attacks.setup(attack, "bf16")}
    serve_baseline("torchattacks", "torchattacks", attack, optimized)
