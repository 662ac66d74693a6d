"""Run the attacks of other libraries on our cases, with our settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata

import torch
from torch import Tensor, nn

from benchmarks.peers.baselines import Baseline
from benchmarks.speed.benchmarks import attacks, early_stopping
from benchmarks.speed.benchmarks.attacks import CaseAttack, verdicts
from benchmarks.speed.cases import AttackCase, parse_case
from benchmarks.speed.results import Outcome, Setup, Work
from benchmarks.speed.timing import timed
from benchmarks.speed.worker import serve
from forefend.runtime.profiling import count_compute
from forefend.runtime.rng import KeyedRNG


def pgd(baseline: Baseline) -> CaseAttack:
    """Return an attack of `benchmarks.peers.baselines` with the settings of the case."""

    def attack(network: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
        return baseline(network, x, y, case.attack(), rng)  # type: ignore[arg-type]

    return attack


def repeated(baseline: Callable[..., Tensor]) -> CaseAttack:
    """Return the same attack with the restarts of its library, as many as the case has."""

    def attack(network: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
        return baseline(network, x, y, case.attack(), rng, restarts=case.restarts)

    return attack


def batched(attack: CaseAttack, name: str) -> Work:
    """Set up a baseline on more images than fit in a batch, with as many restarts as the case has."""
    case = parse_case(name)
    network = case.model.network()
    x, y, index = case.model.images(case.count)

    def attacked() -> Tensor:
        rows = torch.arange(len(x)).split(early_stopping.BATCH)
        return torch.cat([attack(network, x[r], y[r], case, KeyedRNG(index[r], 0, name)).detach() for r in rows])

    def run() -> Outcome:
        torch.manual_seed(0)
        x_adv, seconds = timed(attacked)
        return {"seconds": seconds, **about, **verdicts(network, x_adv, x, y, case)}

    torch.manual_seed(0)
    cost = count_compute(attacked, network)
    about = {"images": len(x), "gradients": cost.gradients / len(x), "forwards": cost.forwards / len(x)}
    return run


def every_restart(name: str, baseline: Callable[..., Tensor]) -> dict[tuple[str, str], Setup]:
    """Return the setup of a baseline that attacks every image in every restart.

    Args:
        name: of the implementation.
        baseline: its attack, which takes `restarts`.
    """
    return {(early_stopping.NAME, name): lambda case: batched(repeated(baseline), case)}


def serve_baseline(
    name: str, package: str, attack: CaseAttack, more: Mapping[tuple[str, str], Setup] | None = None
) -> None:
    """Serve the attack of a baseline.

    Args:
        name: of the implementation.
        package: distribution that it comes from.
        attack: its attack.
        more: further setups.
    """
    setups: dict[tuple[str, str], Setup] = {
        (attacks.NAME, name): attacks.setup(attack),
        (early_stopping.NAME, name): lambda case: batched(attack, case),
    }
    serve(setups | dict(more or {}), {"torch": torch.__version__, package: metadata.version(package)})
