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
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.data import ImageDataset
from forefend.losses import Mean, mse
from forefend.recipes.base import Batch
from forefend.recipes.state import TrainState
from forefend.threat_models.base import ThreatModel
from forefend.training.warm_starts import PriorGuided, WarmStarted

MAX_STEP = 1.25  # radii: the best length of a single step from a random start (Wong et al., 2001.03994)


class InnerAttack(ABC):
    """From the paper's attack to the attack that training runs."""

    @abstractmethod
    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack for this batch."""

    @abstractmethod
    def uses_single_steps(self, steps: int) -> bool:
        """Whether part of training uses a single step, where the paper's attack takes `steps`."""

    def penalty(self, attack: Attack, f: Callable[[Tensor], list[Tensor]]) -> Tensor | None:
        """Return what is added to the loss of the weights after this attack; None for nothing.

        Args:
            attack: the attack that was returned for the batch, after it ran.
            f: images to the logits of each guide behind the preprocessor, or of the classifier, in training form.
        """
        return None

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
        _check_linf("ATTA", threat)

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the attack that starts at the stored perturbations and stores the new ones."""
        size = self.relative_step * attack.threat.radius
        attack = replace(attack, steps=_current(self.steps, batch), step_size=size)
        assert state.perturbations is not None
        return WarmStarted(attack, batch, state.perturbations, batch.epoch % self.reset == 0, self.noise)

    def uses_single_steps(self, steps: int) -> bool:
        """Whether a span takes one step."""
        return 1 in self.steps

    def init_perturbations(self, data: ImageDataset) -> Tensor:
        """Perturbations of the stored images, in 127ths of the radius, `(N, C, H, W)` int8."""
        return torch.zeros(len(data), *data.shape, dtype=torch.int8)


@final
@dataclass(frozen=True)
class FGSMPGI(InnerAttack):
    """One step from the prior of the image: where a step along the momentum of its earlier gradients led.

    The networks are also trained to answer alike at both ends of the step: `weight` times the mean squared difference
    of their logits, over all guides, is added to the loss. That takes two more passes forward and back.

    Args:
        relative_step: length of the step in radii.
        decay: share of the momentum that is kept from epoch to epoch.
        weight: weight of the added term; 0 removes it.
        reset: number of epochs after which the starts are random corners again, without momentum.

    Raises:
        InputError: a decay outside [0, 1), or a negative weight.

    Source: Jia et al., 2207.08859, FGSM-MEP and its regularizer, with the values of the authors' code. As there, and
    not a sign, the momentum sums gradients of mean size 1; ours is over each image, theirs over the batch. Their
    labels are smoothed, while ours are the recipe's; their stored perturbations ignore the augmentation.
    """

    relative_step: float = 1.0
    decay: float = 0.3
    weight: float = 10.0
    reset: int = 40

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"The decay of FGSM-PGI is {self.decay:g}, expected at least 0 and below 1.")
        if not self.weight >= 0:
            raise InputError(f"The weight of FGSM-PGI is {self.weight:g}, expected at least 0.")

    def check(self, threat: ThreatModel) -> None:
        """Check that the threat model is l∞.

        Raises:
            InputError: another norm.
        """
        _check_linf("FGSM-PGI", threat)

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        """Return the step from the stored prior, which stores the next one."""
        attack = replace(attack, steps=1, step_size=self.relative_step * attack.threat.radius)
        assert state.perturbations is not None
        return PriorGuided(attack, batch, state.perturbations, batch.epoch % self.reset == 0, self.decay)

    def penalty(self, attack: Attack, f: Callable[[Tensor], list[Tensor]]) -> Tensor | None:
        """Return the difference between the logits at both ends of the step; gradients flow through both."""
        pairs = attack.pairs if isinstance(attack, PriorGuided) else []
        if not self.weight or not pairs:
            return None
        return self.weight * torch.cat([Mean(mse)(f(x_adv), f(start)) for start, x_adv in pairs]).mean()

    def uses_single_steps(self, steps: int) -> bool:
        """True."""
        return True

    def init_perturbations(self, data: ImageDataset) -> Tensor:
        """Priors in radii and momenta of the stored images, `(N, 2, C, H, W)` float16."""
        return torch.zeros(len(data), 2, *data.shape, dtype=torch.float16)


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


def _current(spans: tuple[Any, ...], batch: Batch) -> Any:
    """The value for this batch, of values for equal spans of training."""
    return spans[int(batch.progress * len(spans))]


def _check_linf(name: str, threat: ThreatModel) -> None:
    if threat.norm != "Linf":
        raise InputError(f"The threat model of {name} is {threat}, expected l∞: use Linf:RADIUS.")


INNER_ATTACKS: dict[str, InnerAttack] = {
    "as-published": AsPublished(),
    "gradual": Gradual(),
    "n-fgsm": SingleNFGSM(),
    "atta": ATTA(),
    "fgsm-pgi": FGSMPGI(),
}
