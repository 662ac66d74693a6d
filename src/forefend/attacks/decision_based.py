"""HopSkipJump and the Boundary attack, run by foolbox: they ask for classes alone, not for scores or gradients."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import ThreatField, attacking
from forefend.attacks.decision_queries import Ended, Queries, seed_of
from forefend.checks import InputError, import_extra
from forefend.losses import margin
from forefend.runtime.rng import KeyedRNG, as_rng, torch_seed
from forefend.threat_models.base import ThreatModel, broadcast_per_image
from forefend.threat_models.lp import L2, Linf


@dataclass(frozen=True)
class Nearest:
    """What an attack found for each image of a batch.

    Args:
        x_adv: the nearest misclassified image that was asked for, `(B, C, H, W)`; the clean image where there is none.
        distance: its distance in the norm of the threat model, `(B,)` float64; infinite where there is none.
        queries: the number of images that were asked for, `(B,)` int64.
    """

    x_adv: Tensor
    distance: Tensor
    queries: Tensor


class DecisionBased(ABC):
    """An attack that walks along the boundary of the true class within a number of queries for each image.

    The starting point is the nearest misclassified one of the negative, flat images and random noise of several
    grains. Every image that is asked for counts, and the nearest misclassified one is kept, so that the number of
    queries is exact.
    """

    threat: ThreatModel
    queries: int
    gradients = 0

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG | None = None) -> Tensor:
        """Attack a batch of images; the search for an image ends with the first one inside the threat model.

        Args:
            f: images to logits, of which only the largest is used.
            x: clean images, `(B, C, H, W)` in [0, 1].
            target: their labels, `(B,)`.
            rng: random numbers; by default seed 0 and the images' places in the batch.

        Returns:
            The misclassified images inside the threat model; elsewhere the nearest misclassified image that was found,
            projected into it, or the clean image if none was found.

        Raises:
            InputError: labels that are no class numbers, or a logit that is NaN or infinite.
        """
        found = self._search(f, x, target, rng, inside=True)
        inside = self.threat.allows(found.x_adv, x)
        return torch.where(broadcast_per_image(inside), found.x_adv, self.threat.project(found.x_adv, x))

    def nearest(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG | None = None) -> Nearest:
        """Return the nearest misclassified images that all queries find, inside the threat model or not.

        Arguments and exceptions are those of a call.
        """
        return self._search(f, x, target, rng, inside=False)

    @property
    def forwards(self) -> int:
        """Maximum number of queries for an image."""
        return self.queries

    def _search(
        self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, rng: KeyedRNG | None, inside: bool
    ) -> Nearest:
        rng = as_rng(rng, x, str(self))
        with attacking(f, x, target, margin) as (f, x, target), torch.no_grad():
            asked = Queries(self, f, x, target, rng, inside)
            with suppress(Ended):
                asked(torch.arange(len(x), device=x.device), x)
                asked.start()
            self._walk(asked)
        return Nearest(asked.x_adv, asked.distance, asked.count)

    @abstractmethod
    def _walk(self, asked: Queries) -> None:
        """Run foolbox's attack from the misclassified images that were found."""

    def _check(self, what: str, numbers: dict[str, float]) -> None:
        if self.queries < 1 or not min(numbers.values()) > 0:
            shown = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
            raise InputError(
                f"{what} has {self.queries} queries, {shown}: give at least 1 query, and the rest above 0."
            )
        if not isinstance(self.threat.radius, float):
            raise InputError(f"{what} does not support {self.threat}: give one radius for all images.")
        _library(what)


@dataclass(frozen=True, repr=False)
class HopSkipJump(DecisionBased):
    """Estimate the direction of the boundary from classes alone, and jump along it, in l2 or l∞.

    Args:
        threat: `L2` or `Linf` threat model with one radius, by name or as an object; its norm is the one minimized.
        queries: most images that are asked for, for each image.
        samples: images around the current one that the first estimate asks for; the t-th asks for √t times as many.
        gamma: the bisections along a line end at a share of its length: gamma / d^1.5 in l2, gamma / d² in l∞, for d
            pixels.

    Raises:
        InputError: another threat model, a number out of range, or foolbox is not installed.

    Source: Chen, Jordan and Wainwright, 1904.02144, in foolbox's form.

    Example:
        >>> import torch, pytest
        >>> _ = pytest.importorskip("foolbox")
        >>> from forefend.attacks import HopSkipJump
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
        >>> x = torch.full((1, 1, 4, 4), 0.5)
        >>> found = HopSkipJump("L2:0.5", queries=300).nearest(model, x, model(x).argmax(1))
        >>> int(found.queries)
        300
    """

    threat: ThreatField[L2 | Linf] = ThreatField(L2, Linf)
    queries: int = 2000
    samples: int = 100
    gamma: float = 1.0

    def __post_init__(self) -> None:
        self._check("HopSkipJump", {"samples": self.samples, "gamma": self.gamma})

    def __str__(self) -> str:
        return f"HopSkipJump-{self.queries}({self.threat}, samples={self.samples}, gamma={self.gamma!r})"

    def _walk(self, asked: Queries) -> None:
        norm = self.threat.norm.lower()
        published: Any = _library("HopSkipJump").attacks.HopSkipJumpAttack

        class Batched(published):  # type: ignore[misc]
            def approximate_gradients(self, is_adversarial: Any, x_advs: Any, steps: int, delta: Any) -> Any:
                """Ask for all images around the current one at once; foolbox asks one by one."""
                return type(x_advs)(_direction(is_adversarial, x_advs, steps, delta.raw, norm))

        attack = Batched(
            steps=self.queries,
            initial_gradient_eval_steps=self.samples,
            max_gradient_eval_steps=self.queries,
            gamma=self.gamma,
            constraint=norm,
        )
        rows = asked.open()
        for row in rows.split(1) if len(rows) else ():  # the directions of an image are drawn with a seed of its own
            with torch_seed(seed_of(asked.rng.select(row.cpu()))):
                _run(attack, asked, row)


@dataclass(frozen=True, repr=False)
class Boundary(DecisionBased):
    """Walk along the boundary at random, and towards the clean image, which shortens the l2 distance.

    In l∞ the walk is the same: an image counts if the l∞ ball allows it, and `nearest` keeps the nearest in l∞.
    HopSkipJump minimizes the l∞ distance itself.

    Args:
        threat: `L2` or `Linf` threat model with one radius, by name or as an object.
        queries: most images that are asked for, for each image.
        spherical_step: first length of a random step, as a share of the distance. foolbox begins with 0.01 in both,
            and is after 2,000 queries twice as far from a linear boundary as with these.
        source_step: first length of a step towards the clean image, likewise.

    Raises:
        InputError: another threat model, a number out of range, or foolbox is not installed.

    Source: Brendel, Rauber and Bethge, 1712.04248, in foolbox's form, after a bisection from the starting point. All
        images take the same random directions, as in foolbox; what happens to one does not depend on the others.
    """

    threat: ThreatField[L2 | Linf] = ThreatField(L2, Linf)
    queries: int = 2000
    spherical_step: float = 0.1
    source_step: float = 0.03

    def __post_init__(self) -> None:
        self._check("Boundary", {"spherical step": self.spherical_step, "source step": self.source_step})

    def __str__(self) -> str:
        steps = f"spherical={self.spherical_step!r}, source={self.source_step!r}"
        return f"Boundary-{self.queries}({self.threat}, {steps})"

    def _walk(self, asked: Queries) -> None:
        attack = _library("Boundary").attacks.BoundaryAttack(
            steps=self.queries, spherical_step=self.spherical_step, source_step=self.source_step
        )
        with suppress(Ended):
            asked.bisect()
        if len(rows := asked.open()):
            with torch_seed(asked.rng.integer()):
                _run(attack, asked, rows)


def _direction(is_adversarial: Any, x_advs: Any, count: int, delta: Tensor, norm: str) -> Tensor:
    """Return the estimated direction into the wrong classes, `(1, C, H, W)` of length 1 (the paper's Eq. 16)."""
    x_adv: Tensor = x_advs.raw
    like = x_adv.expand(count, *x_adv.shape[1:])
    noise = torch.randn_like(like) if norm == "l2" else 2 * torch.rand_like(like) - 1
    around = (x_adv + delta * noise / _length(noise)).clamp(0, 1)
    votes = 2 * is_adversarial(type(x_advs)(around)).raw.to(x_adv.dtype) - 1
    votes = votes - votes.mean() if votes.mean().abs() < 1 else votes
    direction = (broadcast_per_image(votes) * (around - x_adv)).mean(0, keepdim=True)
    return direction / _length(direction)


def _length(x: Tensor) -> Tensor:
    return broadcast_per_image(x.flatten(1).norm(dim=1).clamp_min(1e-12))


def _run(attack: Any, asked: Queries, rows: Tensor) -> None:
    """Run an attack of foolbox on some rows, from their misclassified images; every query is `asked`."""
    foolbox = _library("An attack")
    model: Any = foolbox.models.Model
    criterion: Any = foolbox.Criterion

    class Images(model):  # type: ignore[misc]
        """The images themselves, instead of logits: the criterion asks."""

        bounds = foolbox.types.Bounds(0, 1)

        def __call__(self, inputs: Any) -> Any:
            return inputs

    class Asked(criterion):  # type: ignore[misc]
        def __repr__(self) -> str:
            return "Asked()"

        def __call__(self, perturbed: Any, outputs: Any) -> Any:
            images: Tensor = perturbed.raw
            return type(perturbed)(asked(rows.expand(len(images)) if len(rows) == 1 else rows, images))

    # An assertion fails for a classifier whose rounding differs between equal calls.
    with suppress(Ended, AssertionError):
        attack.run(Images(), asked.x[rows], Asked(), starting_points=asked.x_adv[rows].clone())


def _library(what: str) -> Any:
    with warnings.catch_warnings():  # foolbox is unmaintained, and imports from deprecated places
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_extra("foolbox", what, "blackbox")
