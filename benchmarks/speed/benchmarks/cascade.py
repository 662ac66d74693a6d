"""What does the last word cost? Cheap attacks first and AutoAttack on what they leave, beside AutoAttack on all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.speed.benchmarks.attacks import parity
from benchmarks.speed.benchmarks.early_stopping import errs, once
from benchmarks.speed.cases import TARGETS
from benchmarks.speed.results import Figure, Maker, Measured, Point, Work, figure
from forefend.checks import InputError, choose
from forefend.evaluation.attack_runner import Job, run_all_steps
from forefend.evaluation.suites import general
from forefend.evaluation.trial import Trial, starts_of
from forefend.models.freezing import channels_last_copy
from forefend.models.optimized_copy import OptimizedCopy
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.threat_models.lp import Linf

NAME = "verdict"
OURS, ALONE = "ours", "AutoAttack alone"
BAR = 10.0  # gradients that AutoAttack takes for one of ours; out of reach where many images stand
CLASSES = 10


@dataclass(frozen=True)
class Trying:
    """Which images are tried, and at what radius.

    Args:
        target: name of the target.
        radius: of the l∞ threat model, as text.
        images: how many.
    """

    target: str
    radius: str
    images: int

    def __str__(self) -> str:
        return f"AutoAttack on {self.target} at {self.radius}, {self.images} images"

    @property
    def threat(self) -> Linf:
        """The threat model."""
        return Linf(self.radius)


QUICK = [Trying("resnet20", "2/255", 8)]
FULL = [
    Trying("resnet20", "2/255", 32),  # natural: next to none stands
    Trying("resnet4b", "8/255", 24),  # one in eight
    Trying("resnet4b", "2/255", 8),  # more than half, and those cost the same either way
]


def points(quick: bool) -> list[Point]:
    """The cascade and AutoAttack alone."""
    return [Point(NAME, str(trying), subject) for trying in (QUICK if quick else FULL) for subject in (OURS, ALONE)]


def read(case: str) -> Trying:
    """What `str` wrote.

    Raises:
        InputError: it wrote something else.
    """
    try:
        target, _, rest = case.removeprefix("AutoAttack on ").partition(" at ")
        radius, _, images = rest.partition(", ")
        choose(target, TARGETS, "target")
        return Trying(target, radius, int(images.removesuffix(" images")))
    except ValueError as error:
        raise InputError(
            f"{case!r} is no case, expected such as 'AutoAttack on resnet20 at 2/255, 8 images' ({error})."
        ) from None


def chain(threat: Linf) -> Trial:
    """The cascade."""
    return general([threat], CLASSES)[0]


def alone(threat: Linf) -> Trial:
    """Its last stage on every image."""
    return replace(chain(threat), name="AutoAttack", run=run_all_steps)


def work(trial: Trial, case: str) -> Work:
    """A trial of the images that are right without an attack, as an evaluation runs it: copies are prepared each time.

    Args:
        trial: who attacks.
        case: such as `AutoAttack on resnet20 at 2/255, 32 images`.
    """
    trying = read(case)
    judge = channels_last_copy(TARGETS[trying.target].network())
    x, y, index = TARGETS[trying.target].images(trying.images)
    clean = (~errs(judge, x, y)).nonzero().squeeze(1)

    def judged() -> dict[int, bool]:
        verdicts = dict.fromkeys(index.tolist(), True)
        for images, lost in trial.run(_job(trial, judge, (x, y, index)), clean):
            verdicts |= dict(zip(images, lost, strict=True))
        return verdicts

    with asked(judge) as passes:
        judged()
    about = {name: count / len(x) for name, count in passes.items()} | {"images": len(x)}
    return lambda: once(judged, index, about)


def _job(trial: Trial, judge: nn.Module, images: tuple[Tensor, Tensor, Tensor]) -> Job:
    """The trial against the network, all images at once."""
    x, y, index = images
    return Job(
        name=starts_of(trial),
        attack=trial.attack,
        threat=trial.threat,
        restarts=trial.restarts,
        f=trial.sees(judge),
        wrong=partial(errs, judge),
        fetch=lambda rows: (x[rows], y[rows], index[rows]),
        room=AdaptiveBatchSize(len(x)),
        seed=0,
    )


@contextmanager
def asked(network: nn.Module) -> Iterator[dict[str, int]]:
    """Count the images that go forwards through a network or a prepared copy, and the gradients that come back.

    As `compute.counted` does for one network, without its operations: to count those takes minutes on so many calls.

    Args:
        network: itself; copies are known by their type, whenever they are made.
    """
    passes = {"forwards": 0, "gradients": 0}

    def back(gradient: Tensor) -> None:
        passes["gradients"] += len(gradient)

    def there(module: nn.Module, inputs: Any, output: Any) -> None:
        if module is network or isinstance(module, OptimizedCopy):
            passes["forwards"] += len(output)
            if output.requires_grad:
                output.register_hook(back)

    hook = register_module_forward_hook(there)
    try:
        yield passes
    finally:
        hook.remove()


def _maker(trial_of: Callable[[Linf], Trial]) -> Maker:
    return lambda case: work(trial_of(read(case).threat), case)


SUBJECTS: Mapping[str, Maker] = {OURS: _maker(chain), ALONE: _maker(alone)}


def figures(measured: Measured) -> Iterator[Figure]:
    """Seconds, gradients and forward passes over AutoAttack alone, with the share of images judged alike."""
    for case in dict.fromkeys(point.case for point in measured):
        own, other = Point(NAME, case, OURS), Point(NAME, case, ALONE)
        if own not in measured or other not in measured:
            continue
        told = parity(measured, own, other)
        told |= {"forwards": measured[own][0]["forwards"], "forwards_against": measured[other][0]["forwards"]}
        for unit, bar in (("seconds", None), ("gradients", BAR), ("forwards", None)):
            yield figure(measured, own, other, unit=unit, bar=bar, **told)
