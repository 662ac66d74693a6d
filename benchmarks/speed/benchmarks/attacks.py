"""Speed of attacks: ours and other libraries', each for all its steps, on the same model and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import AttackCase, parse_case
from benchmarks.speed.results import Figure, Measured, Outcome, Point, Setup, Work, figure, nearest
from benchmarks.speed.timing import timed
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.profiling import count_compute
from forefend.runtime.rng import KeyedRNG

NAME = "attack"
QUICK = [AttackCase("resnet20", 10, images=32), AttackCase("random weights", 5, images=16)]
FULL = [
    AttackCase("resnet20", 10),
    AttackCase("resnet20", 10, apgd=True),
    AttackCase("defended resnet20", 10),
    AttackCase("resnet4b", 20),
]
OURS = "ours"
PLAIN = "ours, unprepared"
PGD_BASELINES = ("torchattacks", "adv-lib", "foolbox", "ART")
APGD_BASELINES = ("torchattacks", "adv-lib", "AutoAttack")
ON_OURS = "torchattacks, model prepared by us"
TARGETS = {"foolbox": 3.5, "ART": 3.5}  # of the other baselines only the fastest has a target
BEST = 2.5
# (network, x, y, settings, our source of random numbers) -> x_adv
CaseAttack = Callable[[nn.Module, Tensor, Tensor, AttackCase, KeyedRNG], Tensor]


def points(quick: bool) -> list[Point]:
    """Return ours with an optimized copy in bf16 and fp32, ours without, and every baseline."""
    found = []
    for case in QUICK if quick else FULL:
        baselines = APGD_BASELINES if case.apgd else PGD_BASELINES
        optimized = [ON_OURS] if not quick and not case.apgd else []
        names = [OURS, "ours, fp32", PLAIN, *baselines, *optimized]
        found += [Point(NAME, named(case), name) for name in names]
    return found


def named(case: AttackCase) -> str:
    """Return the case as text with its number of images."""
    return f"{case}, {case.count} images"


def work(attack: CaseAttack, precision: str | None, name: str) -> Work:
    """Set up an attack on a case, and count its gradients.

    Args:
        attack: the attack.
        precision: of the optimized copy that is attacked; None attacks the model as it was loaded.
        name: of the case, such as `PGD-20 on resnet20, 64 images`.
    """
    case = parse_case(name)
    network = case.model.network()
    x, y, index = case.model.images(case.count)
    f, seconds = timed(lambda: network if precision is None else optimized_copy(network, x, precision=precision))

    def attacked() -> Tensor:
        return attack(f, x, y, case, KeyedRNG(index, 0, name))

    def run() -> Outcome:
        torch.manual_seed(0)
        x_adv, taken = timed(attacked)
        return {"seconds": taken, **about, **verdicts(network, x_adv.detach(), x, y, case)}

    torch.manual_seed(0)
    cost = count_compute(attacked, f)
    about = {
        "images": len(x),
        "gradients": cost.gradients / len(x),
        "forwards": cost.forwards / len(x),
        "gflops": cost.flops / 1e9,
        "prepare_seconds": seconds,
    }
    return run


def verdicts(network: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, case: AttackCase) -> dict[str, Any]:
    """Classify adversarial images with the model as it was loaded.

    Returns:
        `lost`, a 1 for each misclassified image and a 0 for each robust one; the robust accuracy; and how far the
        furthest image lies outside the threat model.
    """
    threat = case.model.threat
    with torch.no_grad():
        misclassified = network(threat.project(x_adv, x)).argmax(1) != y
    return {
        "lost": "".join(str(int(one)) for one in misclassified),
        "robust": 1 - float(misclassified.float().mean()),
        "excess": float(threat.excess(x_adv, x).max()),
    }


def ours(f: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
    """Run our attack for all its steps."""
    return case.attack()(f, x, y, rng=rng)


def setup(attack: CaseAttack, precision: str | None = None) -> Setup:
    """Return the function that sets up an attack for a case."""
    return lambda name: work(attack, precision, name)


IMPLEMENTATIONS: Mapping[str, Setup] = {
    OURS: setup(ours, "bf16"),
    "ours, fp32": setup(ours, "fp32"),
    PLAIN: setup(ours),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare ours with every other; the fastest baseline on the model as loaded has a target, and two by name."""
    for case in dict.fromkeys(point.case for point in measured):
        own = Point(NAME, case, OURS)
        if own not in measured:
            continue
        others = [point for point in measured if point.case == case and point != own]
        best = nearest(measured, own, filter(_is_baseline, others))
        for point in others:
            target = BEST if point == best else TARGETS.get(point.implementation)
            yield figure(measured, own, point, target=target, **parity(measured, own, point))


def _is_baseline(point: Point) -> bool:
    return not point.implementation.startswith("ours") and point.implementation != ON_OURS


def parity(measured: Measured, a: Point, b: Point) -> dict[str, Any]:
    """Return what two attacks achieved, and the share of images with the same verdict."""
    first, second = measured[a][0], measured[b][0]
    same = sum(p == q for p, q in zip(first["lost"], second["lost"], strict=True)) / len(first["lost"])
    return {
        "robust": first["robust"],
        "robust_against": second["robust"],
        "same_verdict": same,
        "gradients": first.get("gradients"),
        "gradients_against": second.get("gradients"),
        "images": len(first["lost"]),
    }
