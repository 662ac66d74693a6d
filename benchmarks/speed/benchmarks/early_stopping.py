"""What does a verdict cost? Ours leaves an image once it is lost, and proposes in bf16 what fp32 then judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed.benchmarks.attacks import named, parity
from benchmarks.speed.cases import AttackCase, read
from benchmarks.speed.results import Figure, Maker, Measured, Outcome, Point, Work, figure, nearest
from benchmarks.speed.timing import timed
from forefend.evaluation.attack_runner import Job, Run, run_all_steps, stop_at_success
from forefend.models.freezing import channels_last_copy
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.profiling import count_compute

NAME = "early exit"
QUICK = [AttackCase("resnet20", 10, images=64)]
LONG = AttackCase("resnet20", 100, restarts=5, images=24)  # so long that only the fastest peer is asked
FEW = AttackCase("resnet20", 100, restarts=5, images=8)  # few enough to ask those who attack every image every time
BROKEN = AttackCase("resnet20 at 8/255", 100, restarts=5, images=64)  # natural, at the papers' radius: nothing stands
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
PEERS = ("torchattacks", "adv-lib")  # the two fastest; both leave out what an earlier restart has broken


# What two libraries do of themselves with restarts: no bar, as the others know better.
FOOLBOX, ART = "foolbox, all images in every restart", "ART, all images in every restart"
NATIVE = (FOOLBOX, ART)
ROOM = 64


def points(quick: bool) -> list[Point]:
    """Ours until lost, ours to the end, the fastest peers, and where there are restarts those that spare no image."""
    cases = QUICK if quick else FULL
    return [Point(NAME, named(assault), subject) for assault in cases for subject in _asked(assault)]


def _asked(assault: AttackCase) -> tuple[str, ...]:
    if assault == LONG:
        return OURS, PLAIN, PEERS[1]
    if assault == BROKEN:
        return OURS, *PEERS
    return OURS, "ours, fp32", PLAIN, *PEERS, *(NATIVE if assault.restarts > 1 else ())


def bar(case: str) -> float:
    """What was promised: 4 times the best peer in one attempt, 8 times in five."""
    return 8.0 if read(case).restarts > 1 else 4.0


def work(run: Run, precision: str | None, case: str) -> Work:
    """A trial over a case's images, carried out by `run`.

    Args:
        run: until_lost, or to_the_end.
        precision: in which a stand-in proposes; None attacks the frozen network itself.
        case: such as `PGD-20 on resnet20, 128 images`.
    """
    job, f, index = _job(case, precision)

    def judged() -> dict[int, bool]:
        verdicts: dict[int, bool] = {}
        for images, lost in run(job, torch.arange(len(index))):
            verdicts |= dict(zip(images, lost, strict=True))
        return verdicts

    cost = count_compute(judged, f)
    about = {
        "images": len(index),
        "gradients": cost.gradients / len(index),
        "forwards": cost.forwards / len(index),
    }
    return lambda: once(judged, index, about)


def once(judged: Callable[[], Mapping[int, bool]], index: Tensor, about: Mapping[str, float]) -> Outcome:
    """Judge, and tell how long it took and who was lost.

    Args:
        judged: gives each image's verdict, whether it is lost, by its number.
        index: the images' numbers, in the order of the answer.
        about: what else is told.
    """
    verdicts, taken = timed(judged)
    lost = [verdicts[number] for number in index.tolist()]
    robust = 1 - sum(lost) / len(lost)
    return {"seconds": taken, **about, "lost": "".join(str(int(one)) for one in lost), "robust": robust}


def _job(case: str, precision: str | None) -> tuple[Job, nn.Module, Tensor]:
    """What to run, the network that it attacks, and the images' numbers."""
    assault = read(case)
    network = assault.on.network()
    judge = channels_last_copy(network)
    x, y, index = assault.on.images(assault.count)
    f = judge if precision is None else optimized_copy(network, x, precision=precision)
    job = Job(
        name=case,
        attack=assault.ours(),
        threat=assault.on.threat,
        restarts=assault.restarts,
        f=f,
        wrong=partial(errs, judge),
        fetch=lambda rows: (x[rows], y[rows], index[rows]),
        room=AdaptiveBatchSize(ROOM),
        seed=0,
    )
    return job, f, index


def errs(judge: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the network itself misclassifies each image, `(B,)`."""
    with torch.no_grad():
        return judge(x).argmax(1) != y


SUBJECTS: Mapping[str, Maker] = {
    OURS: partial(work, stop_at_success, "bf16"),
    "ours, fp32": partial(work, stop_at_success, "fp32"),
    PLAIN: partial(work, run_all_steps, None),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Seconds over every other, and gradients over going to the end."""
    for case in dict.fromkeys(point.case for point in measured):
        own, end = Point(NAME, case, OURS), Point(NAME, case, PLAIN)
        others = [point for point in measured if point.case == case and point != own]
        if own not in measured:
            continue
        best = nearest(measured, own, [point for point in others if point.subject in PEERS])
        for point in others:
            promised = bar(case) if point == best else None
            yield figure(measured, own, point, bar=promised, **parity(measured, own, point))
        if end in measured:
            yield figure(measured, own, end, unit="gradients", **parity(measured, own, end))
