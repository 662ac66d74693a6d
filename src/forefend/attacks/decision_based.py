"""HopSkipJump and the Boundary attack, run by foolbox: they see classes alone, no scores and no gradients."""

from __future__ import annotations

import itertools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forefend.attacks.base import ThreatField, attacking
from forefend.attacks.decision_queries import Queries, seed_of
from forefend.checks import InputError, import_extra
from forefend.losses import margin
from forefend.runtime.rng import KeyedRNG, as_rng, torch_seed
from forefend.threat_models.base import ThreatModel, broadcast_per_image
from forefend.threat_models.lp import L2, Linf

_NUMBERS = 2**25  # pixels of the images around those that HopSkipJump attacks together


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
    grains. Every query counts, and the nearest misclassified one is kept, so that the number of
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
        queries: most queries for each image.
        samples: images around the current one queried by the first estimate; the t-th queries √t times as many.
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
        rows, most = asked.open(), self.samples * self.queries**0.5 * asked.x[0].numel()
        for part in rows.split(max(1, int(_NUMBERS / most))) if len(rows) else ():
            attack = _hop_skip_jump(asked, part, self.threat.norm.lower())(
                steps=self.queries,
                initial_gradient_eval_steps=self.samples,
                max_gradient_eval_steps=self.queries,
                gamma=self.gamma * 1.01,  # no bisection ends at its bound itself, where rounding decides
                constraint=self.threat.norm.lower(),
            )
            _run(attack, asked, part, ended=True)


@dataclass(frozen=True, repr=False)
class Boundary(DecisionBased):
    """Walk along the boundary at random, and towards the clean image, which shortens the l2 distance.

    In l∞ the walk is the same: an image counts if the l∞ ball allows it, and `nearest` keeps the nearest in l∞.
    HopSkipJump minimizes the l∞ distance itself.

    Args:
        threat: `L2` or `Linf` threat model with one radius, by name or as an object.
        queries: most queries for each image.
        spherical_step: first length of a random step, as a share of the distance. foolbox begins with 0.01 in both,
            which takes more queries to approach a linear boundary.
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
        asked.bisect()
        if len(rows := asked.open()):
            with torch_seed(asked.rng.integer()):
                _run(attack, asked, rows, ended=False)


def _hop_skip_jump(asked: Queries, rows: Tensor, norm: str) -> Any:
    """Return foolbox's class for some rows, with random directions of each image, in one query each, all at once."""
    published: Any = _library("HopSkipJump").attacks.HopSkipJumpAttack
    estimates = itertools.count()

    class Batched(published):  # type: ignore[misc]
        def approximate_gradients(self, is_adversarial: Any, x_advs: Any, steps: int, delta: Any) -> Any:
            rng = asked.rng.fold_in(purpose=f"{asked.rng.purpose}|direction {next(estimates)}")
            seeds = [seed_of(rng.select(row)) for row in rows.cpu().split(1)]
            return type(x_advs)(_directions(asked, rows, x_advs.raw, delta.raw, norm, steps, seeds))

    return Batched


def _directions(
    asked: Queries, rows: Tensor, x_adv: Tensor, delta: Tensor, norm: str, count: int, seeds: list[int]
) -> Tensor:
    """Return the estimated directions into the wrong classes, `(B, C, H, W)` of length 1 (the paper's Eq. 16)."""
    draw = torch.randn if norm == "l2" else torch.rand
    noise = torch.stack([draw(count, *x_adv.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
    noise = (noise if norm == "l2" else 2 * noise - 1).to(x_adv)
    noise /= noise.flatten(2).norm(dim=2).clamp_min(1e-12).view(*noise.shape[:2], 1, 1, 1)
    around = (x_adv[:, None] + delta.view(-1, 1, 1, 1, 1) * noise).clamp_(0, 1)
    wrong = asked(rows.repeat_interleave(count), around.flatten(0, 1)).view(len(rows), count)
    votes = 2 * wrong.to(x_adv.dtype) - 1
    mean = votes.mean(1, keepdim=True)
    votes = torch.where(mean.abs() < 1, votes - mean, votes)
    directions = torch.einsum("bn,bnchw->bchw", votes, around - x_adv[:, None])
    return directions / broadcast_per_image(directions.flatten(1).norm(dim=1).clamp_min(1e-12))


def _run(attack: Any, asked: Queries, rows: Tensor, *, ended: bool) -> None:
    """Run an attack of foolbox on some rows, from their misclassified images; every query is `asked`.

    Args:
        attack: foolbox's.
        asked: the queries.
        rows: numbers of the images in the batch.
        ended: the answer for images that are not asked for any more, with which the loops of the attack end.
    """
    foolbox = _library("An attack")
    model: Any = foolbox.models.Model
    criterion: Any = foolbox.Criterion
    last = asked.x_adv[rows].clone()  # of each row, the misclassified image asked for last, which is not asked again

    class Images(model):  # type: ignore[misc]
        """The images themselves, instead of logits: the criterion asks."""

        bounds = foolbox.types.Bounds(0, 1)

        def __call__(self, inputs: Any) -> Any:
            return inputs

    class Asked(criterion):  # type: ignore[misc]
        def __repr__(self) -> str:
            return "Asked()"

        def __call__(self, perturbed: Any, outputs: Any) -> Any:
            nonlocal last
            images: Tensor = perturbed.raw
            wrong = (images == last).flatten(1).all(1)
            new = (~wrong & ~asked.ended[rows]).nonzero().flatten()
            wrong[new] = asked(rows[new], images[new]) if len(new) else wrong[new]
            last = torch.where(broadcast_per_image(wrong), images, last)
            over = asked.ended[rows]
            if bool(over.all()):
                raise _Ended
            return type(perturbed)(wrong | over if ended else wrong & ~over)

    with suppress(_Ended):
        attack.run(Images(), asked.x[rows], Asked(), starting_points=last.clone())


class _Ended(Exception):  # noqa: N818
    """The search has ended for all images of a run."""


def _library(what: str) -> Any:
    with warnings.catch_warnings():  # foolbox is unmaintained, and imports from deprecated places
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_extra("foolbox", what, "blackbox")
