"""Cost of AutoAttack after cheap attacks, beside AutoAttack on all images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.speed.benchmarks.attacks import parity
from benchmarks.speed.benchmarks.early_stopping import misclassifies, outcome_of
from benchmarks.speed.cases import MODELS
from benchmarks.speed.results import Figure, Measured, Point, Setup, Work, figure
from forefend.checks import InputError, choose
from forefend.evaluation import suites
from forefend.evaluation.attack_runner import Job, run_all_steps
from forefend.evaluation.trial import Trial
from forefend.models.freezing import channels_last_copy
from forefend.models.optimized_copy import OptimizedCopy
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.threat_models.lp import Linf

NAME = "verdict"
OURS, ALONE = "ours", "AutoAttack alone"
TARGET = 10.0  # gradients of AutoAttack alone for each of ours; out of reach where many images are robust
CLASSES = 10


@dataclass(frozen=True)
class CascadeCase:
    """The images that are attacked, and the radius.

    Args:
        name: of the model.
        radius: of the l∞ threat model, as text.
        images: how many.
    """

    name: str
    radius: str
    images: int

    def __str__(self) -> str:
        return f"AutoAttack on {self.name} at {self.radius}, {self.images} images"

    @property
    def threat(self) -> Linf:
        """The threat model."""
        return Linf(self.radius)


QUICK = [CascadeCase("resnet20", "2/255", 8)]
FULL = [
    CascadeCase("resnet20", "2/255", 32),  # natural: next to no image is robust
    CascadeCase("resnet4b", "8/255", 24),  # one image in eight is robust
    CascadeCase("resnet4b", "2/255", 8),  # more than half are robust, and cost the same either way
]


def points(quick: bool) -> list[Point]:
    """Return the cascade and AutoAttack alone."""
    return [Point(NAME, str(case), name) for case in (QUICK if quick else FULL) for name in (OURS, ALONE)]


def parse_case(text: str) -> CascadeCase:
    """Parse what `str` wrote.

    Raises:
        InputError: the text is no case.
    """
    try:
        name, _, rest = text.removeprefix("AutoAttack on ").partition(" at ")
        radius, _, images = rest.partition(", ")
        choose(name, MODELS, "model")
        return CascadeCase(name, radius, int(images.removesuffix(" images")))
    except ValueError as error:
        raise InputError(
            f"{text!r} is no case, expected e.g. 'AutoAttack on resnet20 at 2/255, 8 images' ({error})."
        ) from None


def chain(threat: Linf) -> Trial:
    """Return the cascade."""
    return suites.cascade([threat], CLASSES)[0]


def alone(threat: Linf) -> Trial:
    """Return the last stage of the cascade, for every image."""
    return replace(chain(threat), name="AutoAttack", run=run_all_steps)


def work(trial: Trial, text: str) -> Work:
    """Set up a trial on the correctly classified images; as in an evaluation, every run makes its copies anew.

    Args:
        trial: the attack.
        text: the case, such as `AutoAttack on resnet20 at 2/255, 32 images`.
    """
    case = parse_case(text)
    evaluated = channels_last_copy(MODELS[case.name].network())
    x, y, index = MODELS[case.name].images(case.images)
    clean = (~misclassifies(evaluated, x, y)).nonzero().squeeze(1)

    def evaluate() -> dict[int, bool]:
        verdicts = dict.fromkeys(index.tolist(), True)
        for images, misclassified in trial.run(_job(trial, evaluated, (x, y, index)), clean):
            verdicts |= dict(zip(images, misclassified, strict=True))
        return verdicts

    with counted_passes(evaluated) as passes:
        evaluate()
    about = {name: count / len(x) for name, count in passes.items()} | {"images": len(x)}
    return lambda: outcome_of(evaluate, index, about)


def _job(trial: Trial, network: nn.Module, images: tuple[Tensor, Tensor, Tensor]) -> Job:
    """Return the trial against the network, with all images in one batch."""
    x, y, index = images
    return Job(
        name=trial.rng_key,
        attack=trial.attack,
        threat=trial.threat,
        restarts=trial.restarts,
        f=trial.access(network),
        misclassified=partial(misclassifies, network),
        fetch=lambda rows: (x[rows], y[rows], index[rows]),
        batch_size=AdaptiveBatchSize(len(x)),
        seed=0,
    )


@contextmanager
def counted_passes(network: nn.Module) -> Iterator[dict[str, int]]:
    """Count the images that pass forward through a network or its optimized copies, and the gradients that return.

    Unlike `profiling.count_compute` this counts no operations, which takes minutes for so many calls.

    Args:
        network: the network; copies are recognized by their type.
    """
    passes = {"forwards": 0, "gradients": 0}

    def backward(gradient: Tensor) -> None:
        passes["gradients"] += len(gradient)

    def forward(module: nn.Module, inputs: Any, output: Any) -> None:
        if module is network or isinstance(module, OptimizedCopy):
            passes["forwards"] += len(output)
            if output.requires_grad:
                output.register_hook(backward)

    hook = register_module_forward_hook(forward)
    try:
        yield passes
    finally:
        hook.remove()


def _setup(trial_of: Callable[[Linf], Trial]) -> Setup:
    return lambda text: work(trial_of(parse_case(text).threat), text)


IMPLEMENTATIONS: Mapping[str, Setup] = {OURS: _setup(chain), ALONE: _setup(alone)}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare seconds, gradients and forward passes with AutoAttack alone."""
    for case in dict.fromkeys(point.case for point in measured):
        own, other = Point(NAME, case, OURS), Point(NAME, case, ALONE)
        if own not in measured or other not in measured:
            continue
        same = parity(measured, own, other)
        same |= {"forwards": measured[own][0]["forwards"], "forwards_against": measured[other][0]["forwards"]}
        for unit, target in (("seconds", None), ("gradients", TARGET), ("forwards", None)):
            yield figure(measured, own, other, unit=unit, target=target, **same)
