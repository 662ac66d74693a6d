"""Inner: what stands in the place of a recipe's inner attack, so that training takes fewer gradient steps.

The recipe hands over the attack of its paper, and is given one for the same threat model and loss.
"""

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
from forefend.recipes.base import Memory
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel

LONGEST = 1.25  # radii: the step with which a single one from a random start does best (Wong et al., 2001.03994)
PERTURBATION = "inner/perturbations"


@dataclass(frozen=True)
class Moment:
    """When in training, and for which images, an attack is asked for.

    Args:
        progress: share of the training done, in [0, 1).
        epoch: from 0.
        rows: of each image among the training images, numbers from 0 to N - 1, `(B,)` int64.
        memory: what is kept for each image.
        moved: this step's augmentation, for perturbations of the images as they are stored.
    """

    progress: float
    epoch: int
    rows: Tensor
    memory: Memory
    moved: Callable[[Tensor], Tensor]


class InnerAttack(ABC):
    """From a paper's attack to the one that training runs."""

    @abstractmethod
    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        """The attack to run at this moment."""

    @abstractmethod
    def single(self, steps: int) -> bool:
        """Whether some of training runs a single step, where the paper's attack takes `steps`."""

    def check(self, threat: ThreatModel) -> None:  # noqa: B027 (most take any)
        """Refuse a threat model that it has no attack for.

        Raises:
            InputError: there is none.
        """

    def remember(self, data: ImageDataset) -> Memory:
        """The tensors that it keeps for each image from epoch to epoch, addressed by its row."""
        return {}


@final
class AsPublished(InnerAttack):
    """The paper's own attack."""

    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        """The attack as it is."""
        return attack

    def single(self, steps: int) -> bool:
        """Whether the paper's attack is a single step."""
        return steps == 1


@final
@dataclass(frozen=True)
class Gradual(InnerAttack):
    """A share of the attack's steps in each span of training, each step longer, so that the way stays the same.

    Args:
        shares: of the paper's steps in equal spans of training (ours: of 7 steps 1, then 3, then all).
    """

    shares: tuple[float, ...] = (1 / 7, 3 / 7, 1.0)

    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        """Fewer and longer steps, none longer than 1.25 radii."""
        share = self.shares[int(moment.progress * len(self.shares))]
        return paced(attack, max(1, round(share * attack.steps)))

    def single(self, steps: int) -> bool:
        """Whether a span comes down to one step."""
        return any(round(share * steps) <= 1 for share in self.shares)


@final
@dataclass(frozen=True)
class SingleStep(InnerAttack):
    """One step from wide noise (`attacks.n_fgsm`): its images leave the threat model, in training only.

    Args:
        noise: half width of the noise in radii.
        relative_step: length of the step in radii.

    Source: de Jorge et al., 2202.01181.
    """

    noise: float = 2.0
    relative_step: float = 1.0

    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        """N-FGSM for the attack's threat model and loss."""
        return NFGSM(attack.threat, self.noise, self.relative_step, attack.loss)

    def single(self, steps: int) -> bool:
        """It is."""
        return True


@final
@dataclass(frozen=True)
class WarmStarted(InnerAttack):
    """Few steps from where the image's attack ended an epoch ago, moved along with the image's augmentation.

    What augmentation moves out of sight keeps its old value, what it moves in from outside starts at zero.

    Args:
        steps: gradient steps each time, in equal spans of training (1 throughout).
        relative_step: length of a step in radii (not stated for our networks; a half).
        reset: epochs after which the starts are random again (authors' code: 10).
        noise: half width in radii of uniform noise that each start is moved by, within the ball (ours; ATTA has none).

    Raises:
        InputError: no span of training, or one without a step; noise below 0.

    Source: Zheng et al., 1912.11969 (ATTA).
    """

    steps: tuple[int, ...] = (1,)
    relative_step: float = 0.5
    reset: int = 10
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple) or not self.steps or min(self.steps) < 1:
            raise InputError(
                f"Warm starts were given the steps {self.steps!r}, expected whole numbers of at least 1, one for each "
                "span of training, such as (1, 1, 1, 2)."
            )
        if not self.noise >= 0:
            raise InputError(f"The noise on warm starts is {self.noise:g} radii wide, expected at least 0.")

    def check(self, threat: ThreatModel) -> None:
        """Refuse another norm than l∞, for which no start is kept.

        Raises:
            InputError: it is another.
        """
        if threat.norm != "Linf":
            raise InputError(f"Warm starts are kept for l∞, and the threat model is {threat}: use Linf:RADIUS.")

    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        """The attack from where it was left, which remembers where it goes.

        Raises:
            InputError: another norm than l∞, or an augmentation that does more than move pixels.
        """
        self.check(attack.threat)
        size = self.relative_step * attack.threat.radius
        steps = self.steps[int(moment.progress * len(self.steps))]
        attack = replace(attack, steps=steps, step_size=size)
        return _Warm(attack, moment, moment.epoch % self.reset == 0, self.noise)

    def single(self, steps: int) -> bool:
        """Whether it ever takes one step."""
        return 1 in self.steps

    def remember(self, data: ImageDataset) -> Memory:
        """Each image's perturbation as it is stored, in 127ths of the radius, `(N, C, H, W)` int8."""
        return {PERTURBATION: torch.zeros(len(data), *data.shape, dtype=torch.int8)}


@final
@dataclass(frozen=True)
class AtLeast(InnerAttack):
    """The paper's attack, or this many steps of it where it takes fewer: what a collapsed training falls back to.

    Args:
        steps: the least number of steps.
    """

    steps: int = 7

    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        """The attack with steps enough to go 1.75 radii, as Madry et al.'s seven do."""
        if attack.steps >= 2:
            return attack
        return replace(attack, steps=self.steps, step_size=1.75 * attack.threat.radius / self.steps)

    def single(self, steps: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class _Warm:
    """An attack that starts where it was left."""

    attack: PGD
    moment: Moment
    cold: bool
    noise: float

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
        moment, stored = self.moment, self.moment.memory[PERTURBATION]
        unit = float(self.attack.threat.radius) / 127
        place = moment.rows.to(stored.device)
        old = stored[place].to(x.device, x.dtype) * unit
        attack = self.attack if self.cold else replace(self.attack, start=_beside(moment.moved(old), self.noise))
        x_adv = attack(f, x, target, rng=rng)
        new = _moved_back(x_adv - x, old, moment.moved)
        stored[place] = (new / unit).round().clamp(-127, 127).to(stored)
        return x_adv


def paced(attack: PGD, steps: int) -> PGD:
    """The attack in another number of steps, which together are as long, though none is longer than 1.25 radii."""
    size = torch.as_tensor(attack.step_size) * attack.steps / steps
    size = size.minimum(LONGEST * torch.as_tensor(attack.threat.radius))
    return (
        attack if steps == attack.steps else replace(attack, steps=steps, step_size=size if size.ndim else float(size))
    )


def _beside(delta: Tensor, noise: float) -> Start:
    def remembered(threat: ThreatModel, x: Tensor, rng: KeyedRNG) -> Tensor:
        return threat.project(x + delta + noise * threat.radius * (2 * rng.uniform(x) - 1), x)

    return remembered


def _moved_back(delta: Tensor, old: Tensor, moved: Callable[[Tensor], Tensor]) -> Tensor:
    """A perturbation of augmented images as one of the stored images; `old` where these are out of sight."""
    ones = torch.ones_like(old, requires_grad=True)
    with torch.enable_grad():
        seen = moved(ones)
    if not torch.equal(moved(-ones.detach()), -seen.detach()):
        raise InputError("Warm starts need an augmentation that only moves pixels: this one changes them, so use none.")
    if not seen.requires_grad:
        raise InputError(
            "Warm starts need an augmentation that gradients go through: this one stops them, so use none."
        )
    # An augmentation that moves pixels is linear, and its transpose moves them back.
    back, weight = (torch.autograd.grad(seen, ones, g, retain_graph=True)[0] for g in (delta, torch.ones_like(delta)))
    return torch.where(weight > 0, back / weight.clamp_min(1e-12), old)


AS_PUBLISHED = AsPublished()
INNER_ATTACKS: dict[str, InnerAttack] = {
    "as-published": AS_PUBLISHED,
    "gradual": Gradual(),
    "single-step": SingleStep(),
    "warm-started": WarmStarted(),
    "warm-then-two": WarmStarted(steps=(1, 1, 1, 2)),
    "warm-deepening": WarmStarted(steps=(1, 2, 3)),
    "warm-noised": WarmStarted(steps=(2, 3), noise=0.5),
}
