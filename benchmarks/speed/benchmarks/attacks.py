"""How fast is an attack? Ours beside others', each to its last step, on the same model and images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import AttackCase, read
from benchmarks.speed.results import Figure, Maker, Measured, Outcome, Point, Work, figure, nearest
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
PGD_PEERS = ("torchattacks", "adv-lib", "foolbox", "ART")
APGD_PEERS = ("torchattacks", "adv-lib", "AutoAttack")
ON_OURS = "torchattacks, model prepared by us"
BARS = {"foolbox": 3.5, "ART": 3.5}  # over the others the best alone has one
BEST = 2.5
Craft = Callable[
    [nn.Module, Tensor, Tensor, AttackCase, KeyedRNG], Tensor
]  # network, x, y, settings, our randomness -> x_adv


def points(quick: bool) -> list[Point]:
    """Ours prepared and not, ours in fp32, and every peer."""
    found = []
    for assault in QUICK if quick else FULL:
        peers = APGD_PEERS if assault.apgd else PGD_PEERS
        subjects = [OURS, "ours, fp32", PLAIN, *peers] + ([ON_OURS] if not quick and not assault.apgd else [])
        found += [Point(NAME, named(assault), subject) for subject in subjects]
    return found


def named(assault: AttackCase) -> str:
    """The case, with the number of images where it is not the target's own."""
    return f"{assault}, {assault.count} images"


def work(craft: Craft, precision: str | None, case: str) -> Work:
    """The attack on a case, set up: the model, the images, and what one run costs in gradients.

    Args:
        craft: what attacks.
        precision: in which the model is prepared for it; None leaves the model as it was loaded.
        case: such as `PGD-20 on resnet20, 64 images`.
    """
    assault = read(case)
    network = assault.on.network()
    x, y, index = assault.on.images(assault.count)
    f, seconds = timed(lambda: network if precision is None else optimized_copy(network, x, precision=precision))

    def attacked() -> Tensor:
        return craft(f, x, y, assault, KeyedRNG(index, 0, case))

    def run() -> Outcome:
        torch.manual_seed(0)
        x_adv, taken = timed(attacked)
        return {"seconds": taken, **about, **judged(network, x_adv.detach(), x, y, assault)}

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


def judged(network: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, assault: AttackCase) -> dict[str, Any]:
    """What the classifier itself, as it was loaded, says of adversarial images: a 1 for each that is lost."""
    threat = assault.on.threat
    with torch.no_grad():
        lost = network(threat.project(x_adv, x)).argmax(1) != y
    return {
        "lost": "".join(str(int(one)) for one in lost),
        "robust": 1 - float(lost.float().mean()),
        "excess": float(threat.excess(x_adv, x).max()),
    }


def ours(f: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
    """Our attack to its last step."""
    return assault.ours()(f, x, y, rng=rng)


def maker(craft: Craft, precision: str | None = None) -> Maker:
    """Sets up an attack for a case."""
    return lambda case: work(craft, precision, case)


SUBJECTS: Mapping[str, Maker] = {
    OURS: maker(ours, "bf16"),
    "ours, fp32": maker(ours, "fp32"),
    PLAIN: maker(ours),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Ours over every other; the bar counts for the nearest peer on the model as it was loaded, and for two by name."""
    for case in dict.fromkeys(point.case for point in measured):
        own = Point(NAME, case, OURS)
        if own not in measured:
            continue
        others = [point for point in measured if point.case == case and point != own]
        peers = [point for point in others if not point.subject.startswith("ours") and point.subject != ON_OURS]
        best = nearest(measured, own, peers)
        for point in others:
            bar = BEST if point == best else BARS.get(point.subject)
            yield figure(measured, own, point, bar=bar, **parity(measured, own, point))


def parity(measured: Measured, a: Point, b: Point) -> dict[str, Any]:
    """What two attacks achieved, and the share of images on which they agree."""
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
