"""Trial: one line of a protocol. An attack, what it sees, how it is run, and what it must obey."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.eot_bpda import bpda_defended, eot
from forefend.checks import InputError
from forefend.evaluation.attack_runner import Job, Run, Verdicts, run_all_steps, stop_at_success
from forefend.models.defense import Defended
from forefend.models.fingerprint import fingerprint
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.labels import label_of, labeled
from forefend.threat_models.base import ThreatModel

Seen = Callable[[Tensor], Any]  # what an attacker sees of a subject
View = Callable[[nn.Module], Seen]


@labeled("white_box")
def white_box(model: nn.Module) -> nn.Module:
    """The attacker sees everything: the whole pipeline."""
    return model


@labeled("oblivious")
def oblivious(model: nn.Module) -> nn.Module:
    """The attacker knows the classifier and does not know that it is defended."""
    return model.classifier if isinstance(model, Defended) else model


@dataclass(frozen=True)
class Surrogate:
    """The attacker sees another classifier than the one attacked, and hopes that its examples transfer.

    Args:
        network: images in [0, 1] to logits.
        name: what tables and records call it; its fingerprint stands beside.
    """

    network: nn.Module
    name: str

    def __call__(self, model: nn.Module) -> nn.Module:
        """The surrogate, whatever the subject."""
        return self.network

    def __str__(self) -> str:
        return f"transfer from {self.name} {fingerprint(self.network)}"


@dataclass(frozen=True)
class Averaged:
    """The attacker averages a randomized pipeline over `samples` passes: expectation over transformation.

    Args:
        samples: forward passes an answer.
        view: what is averaged.
    """

    samples: int
    view: View = white_box
    averages = True  # an evaluation lets such a trial attack what answers at random

    def __call__(self, model: nn.Module) -> nn.Module:
        """The average of the view."""
        return eot(self.view(model), self.samples)

    def __str__(self) -> str:
        return f"eot {self.samples} {label_of(self.view)}"


@labeled("through_bpda")
def through_bpda(model: nn.Module) -> nn.Module:
    """The attacker runs the defense forwards, and takes it for the identity backwards."""
    return bpda_defended(model)


@dataclass(frozen=True, repr=False)
class Trial:
    """One line of a protocol. The verdict is always the subject's own.

    Args:
        name: what tables call it; trials of one name at several radii make a curve.
        attack: made for `threat`.
        threat: what the adversarial images must obey.
        restarts: attempts with different starts; an image is lost if one breaks it.
        sees: from the subject to the `f` that the attack is handed.
        run: to_the_end judges what the attack returns, as the papers do; until_lost every iterate, and stops there:
            for an attacker who can see that the image is lost, and whose attack goes step by step; After others
            attacks only what those left standing.
    """

    name: str
    attack: Attack
    threat: ThreatModel
    restarts: int = 1
    sees: View = white_box
    run: Run = run_all_steps

    def __post_init__(self) -> None:
        inside = getattr(self.attack, "threat", self.threat)
        if str(inside) != str(self.threat):
            raise InputError(f"{self.name} attacks in {inside} and is judged in {self.threat}: make both the same.")
        if self.run is stop_at_success and not all(
            hasattr(self.attack, step) for step in ("begin", "advance", "finish")
        ):
            raise InputError(f"{self.name} does not go step by step, so that nobody can stop it: give run=to_the_end.")
        for stage in self.before:
            if str(stage.threat) != str(self.threat):
                raise InputError(
                    f"{self.name} is judged in {self.threat}, and {stage.name} before it in {stage.threat}: "
                    "make both the same."
                )

    def __str__(self) -> str:
        """The identity written into records: equal in every process, different for different settings."""
        times = f" x{self.restarts}" if self.restarts > 1 else ""
        how = " until lost" if self.run is stop_at_success else f" after {self.run}" if self.before else ""
        return f"{self.attack}{times} in {self.threat} [{label_of(self.sees)}]{how}"

    @property
    def before(self) -> tuple[Trial, ...]:
        """The trials whose survivors alone this one attacks."""
        return self.run.stages if isinstance(self.run, Cascade) else ()

    def gradients(self) -> int:
        """Gradient evaluations an image may cost at most, in the trials before this one too."""
        return _samples(self.sees) * (self._steps() + sum(stage.gradients() for stage in self.before))

    def forwards(self) -> int:
        """Forward passes that an image may cost at most beyond those of its gradients."""
        own = max(0, self.restarts * int(getattr(self.attack, "forwards", 0)) - self._steps())
        return _samples(self.sees) * (own + sum(stage.forwards() for stage in self.before))

    def _steps(self) -> int:
        """Gradients that its own attack takes at most."""
        return self.restarts * int(getattr(self.attack, "gradients", getattr(self.attack, "steps", 1)))


Suite = Sequence[Trial]


def trials_of(suite: Iterable[Trial]) -> list[Trial]:
    """A suite as a list, whatever goes through it only once.

    Raises:
        InputError: it is no list of trials.
    """
    if isinstance(suite, str) or not isinstance(suite, Iterable):
        raise InputError(
            f"A suite is a list of Trials, not a {type(suite).__name__}: give such as forefend.suites.quick(threat)."
        )
    trials = list(suite)
    for trial in trials:
        if not isinstance(trial, Trial):
            raise InputError(f"A suite is a list of Trials, and a {type(trial).__name__} is among them: make it one.")
    return trials


@dataclass(frozen=True, repr=False)
class Cascade:
    """A run that first lets other trials attack, and then attacks to the end only what all of them left standing.

    An image is lost if it is lost to any stage. Each stage, the last too, draws the numbers that it would draw as a
    trial of its own, so that it breaks here what it breaks alone. The last one's batches are cut from who stands in
    the order in which they came, whatever order the verdicts before fell in: where who shares a batch counts, one
    process alone goes on with the batches that it would have had; several may cut others after a stop.

    Args:
        stages: cheapest first; each sees what it would see of a subject in what the trial that runs so sees.
    """

    stages: tuple[Trial, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("A trial that runs After no other is one that runs to_the_end: give that, or a stage.")

    def __str__(self) -> str:
        # Round brackets: a reader of records finds in square ones what the trial itself sees.
        return " then ".join(str(stage).replace("[", "(").replace("]", ")") for stage in self.stages)

    def __call__(self, job: Job, rows: Tensor) -> Iterator[Verdicts]:
        """Yield each image's verdict when it is final: lost ones at once, the others after the last stage.

        Args:
            job: the trial's own.
            rows: row numbers of the images.
        """
        seen: Any = job.f  # what the trial sees is to its stages what a subject is to a trial
        views: list[tuple[View, Seen]] = []  # stages that see the same share one copy
        row_of: dict[int, int] = {}

        def fetch(part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y, index = job.fetch(part)
            row_of.update(zip(index.tolist(), part.tolist(), strict=True))
            return x, y, index

        for stage in self.stages:
            f = next((f for view, f in views if view == stage.sees), None) or stage.sees(seen)
            views.append((stage.sees, f))
            own = replace(job, name=starts_of(stage), attack=stage.attack, restarts=stage.restarts, f=f)
            room = AdaptiveBatchSize(
                job.room.size
            )  # memory that runs out in one stage is no reason to cut the batches of another
            gone: set[int] = set()
            for index, lost in stage.run(replace(own, fetch=fetch, room=room), rows):
                fallen = [number for number, fell in zip(index, lost, strict=True) if fell]
                gone.update(row_of[number] for number in fallen)
                if fallen:
                    yield fallen, [True] * len(fallen)
            rows = rows[torch.tensor([row not in gone for row in rows.tolist()], dtype=torch.bool)]
        yield from run_all_steps(job, rows)


def starts_of(trial: Trial) -> str:
    """What a trial's random numbers are made of: its identity, but for who attacks before it and what copy proposes.

    So that an image meets the same starts whatever makes the evaluation cheaper.
    """
    return str(replace(trial, sees=_without_copies(trial.sees), run=run_all_steps if trial.before else trial.run))


def _without_copies(view: View) -> View:
    """The view that a copy takes the place of."""
    inner: View = getattr(view, "view", white_box)
    if getattr(view, "proposes", False):
        return _without_copies(inner)
    return replace(view, view=_without_copies(inner)) if isinstance(view, Averaged) else view


def _samples(view: View) -> int:
    """How many forward passes one answer of what is seen takes."""
    inner = getattr(view, "view", None)
    return int(getattr(view, "samples", 1)) * (_samples(inner) if inner else 1)


@dataclass(frozen=True)
class Terms:
    """What a protocol is made for.

    Args:
        threats: threat models, one for each radius.
        classes: how many logits the classifiers give.
        surrogates: other classifiers, by name, whose examples may transfer.
    """

    threats: Sequence[ThreatModel]
    classes: int
    surrogates: Mapping[str, nn.Module] = field(default_factory=dict)
