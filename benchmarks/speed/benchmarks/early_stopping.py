"""Speed of an evaluation that stops at success: attacks a bf16 copy, and classifies every iterate in fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed.benchmarks.attacks import named, parity
from benchmarks.speed.cases import AttackCase, parse_case
from benchmarks.speed.results import Figure, Measured, Outcome, Point, Setup, Work, figure, nearest
from benchmarks.speed.timing import timed
from forefend.evaluation.attack_runner import Job, Run, run_all_steps, stop_at_success
from forefend.models.freezing import channels_last_copy
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.profiling import count_compute

NAME = "early exit"
QUICK = [AttackCase("resnet20", 10, images=64)]
LONG = AttackCase("resnet20", 100, restarts=5, images=24)  # so long that only the fastest baseline runs
FEW = AttackCase("resnet20", 100, restarts=5, images=8)  # few enough for attacks on every image in every restart
BROKEN = AttackCase("resnet20 at 8/255", 100, restarts=5, images=64)  # natural, at the papers' radius: none is robust
FULL = [
    AttackCase("resnet20", 20, images=96),
    AttackCase("resnet4b", 20, images=256),
    AttackCase("resnet4b", 100, restarts=5, images=64),
    LONG,
    FEW,
    BROKEN,
]
OURS = "ours"
PLAIN = "ours, to the end in fp32"
BASELINES = ("torchattacks", "adv-lib")  # the two fastest; both skip what an earlier restart has broken
# Restarts as two libraries provide them. No target, because the libraries above skip broken images.
FOOLBOX, ART = "foolbox, all images in every restart", "ART, all images in every restart"
EVERY_RESTART = (FOOLBOX, ART)
BATCH = 64


def points(quick: bool) -> list[Point]:
    """Return ours until success, ours for all steps, and the baselines of each case."""
    cases = QUICK if quick else FULL
    return [Point(NAME, named(case), name) for case in cases for name in _implementations(case)]


def _implementations(case: AttackCase) -> tuple[str, ...]:
    if case == LONG:
        return OURS, PLAIN, BASELINES[1]
    if case == BROKEN:
        return OURS, *BASELINES
    return OURS, "ours, fp32", PLAIN, *BASELINES, *(EVERY_RESTART if case.restarts > 1 else ())


def target(case: str) -> float:
    """Return the target: 4 times the fastest baseline with one restart, 8 times with five."""
    return 8.0 if parse_case(case).restarts > 1 else 4.0


def work(run: Run, precision: str | None, case: str) -> Work:
    """Set up an evaluation of a case.

    Args:
        run: `stop_at_success` or `run_all_steps`.
        precision: of the optimized copy that is attacked; None attacks the network itself.
        case: such as `PGD-20 on resnet20, 128 images`.
    """
    job, f, index = _job(case, precision)

    def evaluate() -> dict[int, bool]:
        verdicts: dict[int, bool] = {}
        for images, misclassified in run(job, torch.arange(len(index))):
            verdicts |= dict(zip(images, misclassified, strict=True))
        return verdicts

    cost = count_compute(evaluate, f)
    about = {
        "images": len(index),
        "gradients": cost.gradients / len(index),
        "forwards": cost.forwards / len(index),
    }
    return lambda: outcome_of(evaluate, index, about)


def outcome_of(evaluate: Callable[[], Mapping[int, bool]], index: Tensor, about: Mapping[str, float]) -> Outcome:
    """Run an evaluation once.

    Args:
        evaluate: returns for each image, by its index, whether it is misclassified.
        index: of the images, in the order of the outcome.
        about: added to the outcome.
    """
    verdicts, taken = timed(evaluate)
    lost = [verdicts[number] for number in index.tolist()]
    robust = 1 - sum(lost) / len(lost)
    return {"seconds": taken, **about, "lost": "".join(str(int(one)) for one in lost), "robust": robust}


def _job(name: str, precision: str | None) -> tuple[Job, nn.Module, Tensor]:
    """Return what to run, the network that it attacks, and the indices of the images."""
    case = parse_case(name)
    network = case.model.network()
    evaluated = channels_last_copy(network)
    x, y, index = case.model.images(case.count)
    f = evaluated if precision is None else optimized_copy(network, x, precision=precision)
    job = Job(
        name=name,
        attack=case.attack(),
        threat=case.model.threat,
        restarts=case.restarts,
        f=f,
        misclassified=partial(misclassifies, evaluated),
        fetch=lambda rows: (x[rows], y[rows], index[rows]),
        batch_size=AdaptiveBatchSize(BATCH),
        seed=0,
    )
    return job, f, index


def misclassifies(network: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None) -> Tensor:
    """Return whether the network misclassifies each image, `(B,)` bool."""
    with torch.no_grad():
        return network(x).argmax(1) != y


IMPLEMENTATIONS: Mapping[str, Setup] = {
    OURS: partial(work, stop_at_success, "bf16"),
    "ours, fp32": partial(work, stop_at_success, "fp32"),
    PLAIN: partial(work, run_all_steps, None),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare the seconds of ours with every other, and its gradients with those of all steps."""
    for case in dict.fromkeys(point.case for point in measured):
        own, full = Point(NAME, case, OURS), Point(NAME, case, PLAIN)
        others = [point for point in measured if point.case == case and point != own]
        if own not in measured:
            continue
        best = nearest(measured, own, [point for point in others if point.implementation in BASELINES])
        for point in others:
            goal = target(case) if point == best else None
            yield figure(measured, own, point, target=goal, **parity(measured, own, point))
        if full in measured:
            yield figure(measured, own, full, unit="gradients", **parity(measured, own, full))
