"""Replacements of a recipe's inner attack that take fewer gradient steps, for the same threat model and loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.n_fgsm import NFGSM
from forefend.attacks.pgd import PGD, Start
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.recipes.base import Batch
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel

MAX_STEP = 1.25  # radii: the best length of a single step from a random start (Wong et al., 2001.03994)


class InnerAttack(ABC):
    """From the paper's attack to the attack that training runs."""

    @abstractmethod
    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack for this batch."""

    @abstractmethod
    def uses_single_steps(self, steps: int) -> bool:
        """Whether part of training uses a single step, where the paper's attack takes `steps`."""

    def check(self, threat: ThreatModel) -> None:  # noqa: B027
        """Check the threat model.

        Raises:
            InputError: the threat model is not supported.
        """

    def init_perturbations(self, data: ImageDataset) -> Tensor | None:
        """Return the perturbations to keep from epoch to epoch, addressed by row; None for none."""
        return None


@final
class AsPublished(InnerAttack):
    """The paper's own attack."""

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack unchanged."""
        return attack

    def uses_single_steps(self, steps: int) -> bool:
        """Whether the paper's attack is a single step."""
        return steps == 1


@final
@dataclass(frozen=True)
class Gradual(InnerAttack):
    """A growing share of the attack's steps; fewer steps are longer, so that their total length is the same.

    Args:
        shares: shares of the paper's steps in equal spans of training (ours: 1 of 7 steps, then 3, then all).
    """

    shares: tuple[float, ...] = (1 / 7, 3 / 7, 1.0)

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack with fewer and longer steps, of 1.25 radii at most."""
        steps = max(1, round(_current(self.shares, batch) * attack.steps))
        if steps == attack.steps:
            return attack
        size = torch.as_tensor(attack.step_size) * attack.steps / steps
        size = size.minimum(MAX_STEP * torch.as_tensor(attack.threat.radius))
        return replace(attack, steps=steps, step_size=float(size))

    def uses_single_steps(self, steps: int) -> bool:
        """Whether a span takes one step."""
        return any(round(share * steps) <= 1 for share in self.shares)


@final
@dataclass(frozen=True)
class SingleNFGSM(InnerAttack):
    """One step from wide noise; the images may leave the threat model, in training only.

    Args:
        noise: half width of the noise in radii.
        relative_step: length of the step in radii.

    Source: de Jorge et al., 2202.01181.
    """

    noise: float = 2.0
    relative_step: float = 1.0

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return N-FGSM for the attack's threat model and loss."""
        return NFGSM(attack.threat, self.noise, self.relative_step, attack.loss)

    def uses_single_steps(self, steps: int) -> bool:
        """True."""
        return True


@final
@dataclass(frozen=True)
class ATTA(InnerAttack):
    """A few steps from the perturbation of the previous epoch, transformed by the image's augmentation.

    Pixels that the augmentation removes keep their old perturbation; pixels that it adds start at zero.

    Args:
        steps: gradient steps, in equal spans of training.
        relative_step: length of a step in radii (not stated for our networks; 0.5).
        reset: number of epochs after which the starts are random again (authors' code: 10).
        noise: half width, in radii, of uniform noise added to each start (ours; 0 in the paper).

    Raises:
        InputError: no span, a span without a step, or negative noise.

    Source: Zheng et al., 1912.11969.
    """

    steps: tuple[int, ...] = (1,)
    relative_step: float = 0.5
    reset: int = 10
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple) or not self.steps or min(self.steps) < 1:
            raise InputError(f"The steps of ATTA are {self.steps!r}, expected one or more numbers of at least 1.")
        if not self.noise >= 0:
            raise InputError(f"The noise of ATTA is {self.noise:g} radii, expected at least 0.")

    def check(self, threat: ThreatModel) -> None:
        """Check that the threat model is l∞.

        Raises:
            InputError: another norm.
        """
        if threat.norm != "Linf":
            raise InputError(f"The threat model of ATTA is {threat}, expected l∞: use Linf:RADIUS.")

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack that starts at the stored perturbations and stores the new ones."""
        size = self.relative_step * attack.threat.radius
        attack = replace(attack, steps=_current(self.steps, batch), step_size=size)
        assert state.perturbations is not None
        return _WarmStarted(attack, batch, state.perturbations, batch.epoch % self.reset == 0, self.noise)

    def uses_single_steps(self, steps: int) -> bool:
        """Whether a span takes one step."""
        return 1 in self.steps

    def init_perturbations(self, data: ImageDataset) -> Tensor:
        """Perturbations of the stored images, in 127ths of the radius, `(N, C, H, W)` int8."""
        return torch.zeros(len(data), *data.shape, dtype=torch.int8)


@final
@dataclass(frozen=True)
class AtLeast(InnerAttack):
    """The paper's attack, or several steps of it if it takes one: used after catastrophic overfitting.

    Args:
        steps: the number of steps.
    """

    steps: int = 7

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack with a total length of 1.75 radii, as Madry et al.'s seven steps have."""
        if attack.steps >= 2:
            return attack
        return replace(attack, steps=self.steps, step_size=1.75 * attack.threat.radius / self.steps)

    def uses_single_steps(self, steps: int) -> bool:
        """False."""
        return False


@dataclass(frozen=True)
class _WarmStarted:
    """An attack that starts at stored perturbations, and stores where it ends."""

    attack: PGD
    batch: Batch
    stored: Tensor
    reset: bool
    noise: float

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        stored, augment = self.stored, self.batch.augment
        unit = float(self.attack.threat.radius) / 127
        rows = self.batch.rows.to(stored.device)
        old = stored[rows].to(x.device, x.dtype) * unit
        attack = self.attack if self.reset else replace(self.attack, start=_start_at(augment(old), self.noise))
        x_adv = attack(f, x, target, rng=rng)
        new = _undo_augmentation(x_adv - x, old, augment)
        stored[rows] = (new / unit).round().clamp(-127, 127).to(stored)
        return x_adv


def _current(spans: tuple[Any, ...], batch: Batch) -> Any:
    """The value for this batch, of values for equal spans of training."""
    return spans[int(batch.progress * len(spans))]


def _start_at(delta: Tensor, noise: float) -> Start:
    def start(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
        return threat.project(x + delta + noise * threat.radius * (2 * rng.uniform(x) - 1), x)

    return start


def _undo_augmentation(delta: Tensor, old: Tensor, augment: Callable[[Tensor], Tensor]) -> Tensor:
    """Move perturbations of augmented images to the stored images; pixels that are not visible keep `old`."""
    ones = torch.ones_like(old, requires_grad=True)
    with torch.enable_grad():
        seen = augment(ones)
    if not torch.equal(augment(-ones.detach()), -seen.detach()):
        raise InputError("ATTA requires an augmentation that only moves pixels, and this one changes them: use none.")
    if not seen.requires_grad:
        raise InputError("ATTA requires an augmentation that passes gradients, and this one stops them: use none.")
    # An augmentation that moves pixels is linear, and its transpose moves them back.
    back, weight = (torch.autograd.grad(seen, ones, g, retain_graph=True)[0] for g in (delta, torch.ones_like(delta)))
    return torch.where(weight > 0, back / weight.clamp_min(1e-12), old)


INNER_ATTACKS: dict[str, InnerAttack] = {
    "as-published": AsPublished(),
    "gradual": Gradual(),
    "n-fgsm": SingleNFGSM(),
    "atta": ATTA(),
}
