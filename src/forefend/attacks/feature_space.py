"""Attacks on features, latents and reconstructions: PGD with another loss, another target and another view.

Each attack is a `PGD` whose target is not the label. `Aimed` finds that target from the label, so that the attack
serves wherever labels are what there is; the views say what the attacker reads of a defended classifier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, Start, from_x, random_start
from forefend.checks import InputError
from forefend.losses import ce, mse
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel

Aim = Callable[[Callable[[Tensor], Any], Tensor, Tensor, KeyedRNG], Any]


def feature_attack(threat: ThreatModel, steps: int, step_size: float, start: Start = random_start) -> PGD:
    """Push the features as far from those of the clean image as the threat model allows; labels play no part.

    Hand it a view that returns features, and for target the features of the clean images, or `Aimed` at `clean`.

    Raises:
        InputError: the start is x itself, where the distance is zero and so is its gradient.

    Source: JATP (2106.05453), Eq. 5.
    """
    if start is from_x:
        raise InputError("A feature attack from x itself has no gradient and would never move: give random_start.")
    return PGD(threat, steps, step_size, loss=mse, start=start)


def latent_attack(threat: ThreatModel, steps: int, step_size: float, start: Start = random_start) -> PGD:
    """Bring the latent vector as near to that of an image of another class as the threat model allows.

    Hand it a view that returns latents, and for target those to come near, or `Aimed` at an `AnotherClass`.

    Source: AAA (1909.05921), section 6, attack 2.
    """
    return PGD(threat, steps, step_size, loss=nearness, start=start)


def reconstruction_attack(threat: ThreatModel, steps: int, step_size: float, weight: float = 1.0) -> PGD:
    """Mislead the classifier and spoil the preprocessor's image at once.

    Hand it a view that returns `(logits, reconstruction)`, and the target `(y, x)`, or `Aimed` at `label_and_image`.

    Source: AAA (1909.05921), section 6, attack 1; the weight is not stated.
    """
    return PGD(threat, steps, step_size, loss=CeAndReconstruction(weight))


@labeled("nearness")
def nearness(latent: Tensor, goal: Tensor) -> Tensor:
    """Minus the squared Euclidean distance of two latents, `(B,)`: as attacks maximize, it brings them together."""
    return -(latent - goal).square().flatten(1).sum(1)


@dataclass(frozen=True)
class CeAndReconstruction:
    """Cross-entropy plus `weight` times the mean squared distance of the reconstruction from the clean image."""

    weight: float = 1.0

    def __call__(self, prediction: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        """`(B,)`, from `(logits, reconstruction)` and `(y, x)`."""
        (logits, reconstruction), (y, x) = prediction, target
        return ce(logits, y) + self.weight * mse(reconstruction, x)

    def __str__(self) -> str:
        return f"ce + {self.weight!r} mse"


@dataclass(frozen=True, repr=False)
class Aimed:
    """An attack that is handed labels, and finds the target its loss needs.

    Args:
        attack: what is run.
        aim: `(f, x, y, draw) -> target`: clean, label_and_image or an AnotherClass.
    """

    attack: Attack
    aim: Aim

    def __str__(self) -> str:
        return f"{self.attack} at {label_of(self.aim)}"

    @property
    def steps(self) -> int:
        """Gradient evaluations an image costs at most."""
        return int(getattr(self.attack, "steps", 1))

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG) -> Tensor:
        """The attack's images, for labels `(B,)`."""
        with eval_and_no_grad(f), torch.no_grad():
            aimed_at = self.aim(f, x, target, rng)
        return self.attack(f, x, aimed_at, rng=rng)


@labeled("clean")
def clean(f: Callable[[Tensor], Any], x: Tensor, y: Tensor, rng: KeyedRNG) -> Any:
    """What `f` says of the clean images."""
    return f(x)


@labeled("label_and_image")
def label_and_image(f: Callable[[Tensor], Any], x: Tensor, y: Tensor, rng: KeyedRNG) -> tuple[Tensor, Tensor]:
    """The labels and the clean images themselves."""
    return y, x


@dataclass(frozen=True, eq=False, repr=False)
class AnotherClass:
    """What `f` says of another image, drawn for each image from those of a pool with another label.

    Args:
        x: the pool's images, `(N, C, H, W)` in [0, 1].
        y: their labels, `(N,)`.
    """

    x: Tensor
    y: Tensor

    def __str__(self) -> str:
        content = b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in (self.x, self.y))
        return f"another class of {len(self.y)} images {hashlib.sha256(content).hexdigest()[:8]}"

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, y: Tensor, rng: KeyedRNG) -> Any:
        """`f` of the images drawn."""
        return f(self.x.to(x.device)[another_class(self.y.to(y.device), y, rng)])


@labeled("another_class")
def another_class(pool: Tensor, y: Tensor, rng: KeyedRNG) -> Tensor:
    """For each image the place in a pool of one with another label, each equally likely: `(B,)` int64.

    An image is given the same place in whatever batch it travels.

    Args:
        pool: the pool's labels, `(N,)`.
        y: the images' labels, `(B,)`.
        rng: where the choice comes from.

    Raises:
        InputError: the pool holds no image of another class than one of `y`.
    """
    others = pool != y[:, None]
    counts = others.sum(1)
    if not bool((counts > 0).all()):
        label = int(y[counts == 0][0])
        raise InputError(f"The pool of {len(pool)} images holds none of another class than {label}: give a mixed one.")
    chance = rng.fold_in(purpose=f"{rng.purpose}|another class").uniform(counts.double()[:, None]).squeeze(1)
    rank = (chance * counts).long()
    return (others.cumsum(1) > rank[:, None]).long().argmax(1)


@dataclass(frozen=True)
class Features:
    """A view: the features at one place in the classifier, of whatever the defense makes of the image.

    Args:
        tap: dotted name of a module in the classifier, e.g. what its `taps.third` says.
    """

    tap: str

    def __str__(self) -> str:
        return f"features at {self.tap}"

    def __call__(self, model: nn.Module) -> nn.Module:
        """Images to features.

        Args:
            model: a `Defended`, or a `Guide` that stands alone.
        """
        pipeline: Any = model
        guide = getattr(pipeline, "classifier", None) if hasattr(model, "defense") else pipeline
        if not hasattr(guide, "read"):
            raise InputError(f"{type(model).__name__} has no taps to read features at: wrap it in Guide or Defended.")
        return _Features(getattr(pipeline, "defense", nn.Identity()), guide, self.tap)


@labeled("latent")
def latent(model: nn.Module) -> nn.Module:
    """A view: what the defense's `encoder` makes of the image; the classifier plays no part.

    Raises:
        InputError: the defense has no `encoder`.
    """
    defense: Any = _defense(model)
    network = getattr(defense, "preprocessor", defense)  # a Defense holds one, a bare preprocessor is one
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise InputError(
            f"{type(network).__name__} has no encoder, and a latent attack needs one: give an autoencoder."
        )
    return encoder


@labeled("reconstruction")
def reconstruction(model: nn.Module) -> nn.Module:
    """A view: `(logits, reconstruction)`, what the classifier says and what the defense made of the image.

    Raises:
        InputError: the subject is not defended.
    """
    pipeline: Any = model
    return _Reconstruction(_defense(model), pipeline.classifier)


def _defense(model: nn.Module) -> nn.Module:
    defense = getattr(model, "defense", None)
    if not isinstance(defense, nn.Module):
        raise InputError(f"{type(model).__name__} has no defense to attack: hand in a Defended.")
    return defense


@final
class _Features(nn.Module):
    """Defense, then classifier, up to a tap."""

    def __init__(self, defense: nn.Module, guide: Any, tap: str) -> None:
        super().__init__()
        self.defense, self.guide, self.tap = defense, guide, tap

    def forward(self, x: Tensor) -> Tensor:
        """Features `(B, …)`."""
        features: Tensor = self.guide.read(self.defense(x), [self.tap])[1][self.tap]
        return features


@final
class _Reconstruction(nn.Module):
    """Defense, then classifier, and both outputs."""

    def __init__(self, defense: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.defense, self.classifier = defense, classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(B, K)` and images like `x`."""
        z = self.defense(x)
        return self.classifier(z), z
