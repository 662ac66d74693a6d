"""Trial: an attack, its threat model, the attacker's access, and how the attack is run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.base import Attack
from forefend.checks import InputError
from forefend.evaluation.access import Access, CraftedOn, Function, GradientOf, Surrogate
from forefend.evaluation.attack_runner import Job, Run, Verdicts, run_all_steps, stop_at_success
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.threat_models.base import ThreatModel


@dataclass(frozen=True, repr=False)
class Trial:
    """One line of an evaluation protocol.

    Args:
        name: its name in tables; trials of one name at several radii make a curve.
        attack: an attack made for `threat`.
        threat: the threat model that adversarial images must obey.
        restarts: attempts with different starts; an image is misclassified if one attempt succeeds.
        access: what the attacker computes with.
        run: `run_all_steps` evaluates the image that the attack returns, as the papers do;
            `stop_at_success` evaluates every iterate; a `Cascade` does so on the images that are
            robust against other trials.

    Raises:
        InputError: attack, threat model and run do not fit together.
    """

    name: str
    attack: Attack
    threat: ThreatModel
    restarts: int = 1
    access: Access = Access()  # noqa: RUF009
    run: Run = run_all_steps

    def __post_init__(self) -> None:
        threats = [getattr(self.attack, "threat", self.threat), *(stage.threat for stage in self.stages)]
        if other := next((threat for threat in threats if str(threat) != str(self.threat)), None):
            raise InputError(f"{self.name} is evaluated in {self.threat} but attacks in {other}: use one threat model.")
        iterative = all(hasattr(self.attack, step) for step in ("begin", "advance", "finish"))
        if self.until_success and not iterative:
            raise InputError(f"{self.name} has no steps to stop at: use run=run_all_steps.")

    def __str__(self) -> str:
        """The identity in records: equal in every process, different for different settings."""
        times = f" x{self.restarts}" if self.restarts > 1 else ""
        how = f" after {self.run}" if self.stages else ""
        how += " until lost" if self.until_success else ""
        return f"{self.attack}{times} in {self.threat} [{self.access}]{how}"

    @property
    def stages(self) -> tuple[Trial, ...]:
        """The earlier stages of a cascade; none for other trials."""
        return self.run.stages if isinstance(self.run, Cascade) else ()

    @property
    def until_success(self) -> bool:
        """Whether every iterate of the trial's own attack is evaluated, and the first success ends it."""
        return stop_at_success in (self.run, self.run.last if isinstance(self.run, Cascade) else None)

    @property
    def averages(self) -> bool:
        """Whether the attack averages random outputs, by its access or by itself."""
        return self.access.eot_samples > 0 or bool(getattr(self.attack, "averages", False))

    def gradients(self) -> int:
        """Return the largest number of gradients for an image, those of earlier stages included."""
        return max(1, self.access.eot_samples) * (self._steps() + sum(stage.gradients() for stage in self.stages))

    def forwards(self) -> int:
        """Return the largest number of forward passes for an image besides its gradients."""
        own = max(0, self.restarts * int(getattr(self.attack, "forwards", 0)) - self._steps())
        return max(1, self.access.eot_samples) * (own + sum(stage.forwards() for stage in self.stages))

    def _steps(self) -> int:
        return self.restarts * int(getattr(self.attack, "gradients", getattr(self.attack, "steps", 1)))

    def on(self, device: torch.device) -> Trial:
        """Return the trial as it runs on `device`, with the precision of copies there."""
        return self._with_access(self.access.on(device), tuple(stage.on(device) for stage in self.stages))

    def _with_access(self, access: Access, stages: tuple[Trial, ...]) -> Trial:
        run = replace(self.run, stages=stages) if isinstance(self.run, Cascade) else self.run
        return replace(self, access=access, run=run)

    def _with_copies(self, precision: str) -> Trial:
        if self.stages:
            return self._with_access(self.access, tuple(stage._with_copies(precision) for stage in self.stages))
        same = precision == "fp32" and isinstance(self.attack, AutoAttack) and not self.attack.averages
        if self.run is not stop_at_success and not same:
            return self
        return replace(self, access=replace(self.access, precision=precision))

    @property
    def rng_key(self) -> str:
        """The key of the trial's random numbers: its identity without copies and earlier stages.

        An image therefore has the same random starts in a cheaper evaluation, and on every source.
        """
        run = self.run.last if isinstance(self.run, Cascade) else self.run
        access = Access() if isinstance(self.access.view, CraftedOn) else replace(self.access, precision=None)
        return str(replace(self, access=access, run=run))


Suite = Sequence[Trial]


def with_copies(suite: Suite, precision: str = "bf16") -> list[Trial]:
    """Return a suite whose attacks compute with optimized copies where the model itself decides.

    These are the trials that stop at success, and in fp32, where a copy is the same function,
    AutoAttack too. Other trials are unchanged.

    Args:
        suite: the trials.
        precision: `fp32` or `bf16`.
    """
    return [trial._with_copies(precision) for trial in suite]


def surrogates_of(suite: Suite) -> list[Surrogate | CraftedOn | GradientOf]:
    """Return the other networks that the trials compute with, each once."""
    views = [trial.access.view for trial in suite] + [stage.access.view for trial in suite for stage in trial.stages]
    return list(
        {id(view.network): view for view in views if isinstance(view, Surrogate | CraftedOn | GradientOf)}.values()
    )


def as_trials(suite: Iterable[Trial]) -> list[Trial]:
    """Return the trials of a suite as a list.

    Raises:
        InputError: it is no list of trials.
    """
    trials = list(suite) if isinstance(suite, Iterable) and not isinstance(suite, str) else [suite]
    for trial in trials:
        if not isinstance(trial, Trial):
            raise InputError(
                f"The suite holds a {type(trial).__name__}, expected a list of Trials such as "
                "forefend.suites.quick('Linf:8/255'), or the name of a suite."
            )
    return trials


_TOGETHER = 8  # batches that a cascade takes through its stages at a time


@dataclass(frozen=True, repr=False)
class Cascade:
    """Run other trials first, and the trial itself on the images that they do not break.

    Each stage draws the random numbers that it would draw as a trial of its own. An attack that can
    go on from an image, such as Square, goes on from what the stage before it came nearest with.

    Args:
        stages: the earlier trials, cheapest first; their access is relative to that of the trial.
        last: how the trial itself is run. `run_all_steps` cuts its batches from the images that remain.

    Raises:
        InputError: there is no stage.
    """

    stages: tuple[Trial, ...]
    last: Run = run_all_steps

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("A Cascade needs at least one stage: give a trial, or use run=run_all_steps.")

    def __str__(self) -> str:
        # Round brackets, because readers of records find the access of the trial itself in square
        # brackets.
        return " then ".join(str(stage).replace("[", "(").replace("]", ")") for stage in self.stages)

    def __call__(self, job: Job, rows: Tensor) -> Iterator[Verdicts]:
        """Yield each image's verdict as soon as it is final.

        Args:
            job: the trial's own.
            rows: row numbers of the images.
        """
        functions: list[tuple[Access, Function]] = []  # stages with the same access share one copy
        for stage in self.stages:
            if all(access != stage.access for access, _ in functions):
                functions.append((stage.access, stage.access(job.f)))  # type: ignore[arg-type]
        # The images that stages leave are held in memory; what a last stage to the end gets is not cut.
        size = _TOGETHER * job.batch_size.size if self.last is stop_at_success else max(len(rows), 1)
        for part in rows.split(size):
            yield from self._part(job, part, functions)

    def _part(self, job: Job, rows: Tensor, functions: Sequence[tuple[Access, Function]]) -> Iterator[Verdicts]:
        """Run the stages on some of the images, and the trial on those that they leave."""
        row_of: dict[int, int] = {}
        starts: dict[int, Tensor] = {}

        def fetch(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y, index = job.fetch(part)
            row_of.update(zip(index.tolist(), part.tolist(), strict=True))
            return x, y, index

        for stage in self.stages:
            f = next(f for access, f in functions if access == stage.access)
            nearest: dict[int, Tensor] = {}
            own = replace(job, name=stage.rng_key, attack=stage.attack, restarts=stage.restarts, f=f, fetch=fetch)
            # A batch size of its own: memory that one stage lacks must not cut the batches of another.
            own = replace(own, batch_size=AdaptiveBatchSize(job.batch_size.size), starts=starts, nearest=nearest)
            broken: set[int] = set()
            for index, misclassified in stage.run(own, rows):
                found = [number for number, wrong in zip(index, misclassified, strict=True) if wrong]
                broken.update(row_of[number] for number in found)
                if found:
                    yield found, [True] * len(found)
            rows, starts = rows[torch.tensor([row not in broken for row in rows.tolist()], dtype=torch.bool)], nearest
        yield from self.last(replace(job, starts=starts), rows)


@dataclass(frozen=True)
class Terms:
    """What a suite is made for.

    Args:
        threats: threat models, one for each radius.
        classes: the number of logits of the classifiers.
        surrogates: other classifiers, by name, whose adversarial examples may transfer.
        scores: whether the classifiers give more than labels.
    """

    threats: Sequence[ThreatModel]
    classes: int = 10
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
    scores: bool = True
