"""Serve APGD of AutoAttack, from its package pyautoattack."""

from __future__ import annotations

from importlib import import_module

from torch import Tensor, nn

from benchmarks.speed.baseline_worker import serve_baseline
from benchmarks.speed.cases import AttackCase
from forefend.runtime.rng import KeyedRNG


def attack(network: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
    """Run APGD on the cross-entropy; its start counts as a step here, and it skips misclassified clean images."""
    library = import_module("pyautoattack.autopgd_base")
    apgd = library.APGDAttack(network, n_iter=case.steps - 1, eps=case.model.threat.radius, device=x.device)
    return apgd.perturb(x, y)


if __name__ == "__main__":
    serve_baseline("AutoAttack", "pyautoattack", attack)
