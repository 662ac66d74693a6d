"""Attacks on features, latents and reconstructions: PGD with another loss, target and view.

Each attack is a `PGD` whose target is not the label. `WithTarget` computes the target from the label, and a view
selects what the attack reads of a defended classifier.
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
from forefend.checks import InputError, as_labels
from forefend.losses import ce, mse
from forefend.models.freezing import eval_and_no_grad
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG, as_rng
from forefend.threat_models.base import ThreatModel

MakeTarget = Callable[[Callable[[Tensor], Any], Tensor, Tensor, KeyedRNG], Any]


def feature_attack(
    threat: ThreatModel | str, steps: int = 20, step_size: float | None = None, start: Start = random_start
) -> PGD:
    """Return PGD that maximizes the distance of the features from those of the clean image.

    Call it on a view that returns features, with the features of the clean images as target.

    Raises:
        InputError: the start is x itself, where the gradient of the distance is zero.

    Source: JATP (2106.05453), Eq. 5.
    """
    if start is from_x:
        raise InputError("A feature attack that starts at from_x has zero gradient: give random_start.")
    return PGD(threat, steps, step_size, loss=mse, start=start)


def latent_attack(
    threat: ThreatModel | str, steps: int = 20, step_size: float | None = None, start: Start = random_start
) -> PGD:
    """Return PGD that minimizes the distance of the latent vector to that of an image of another class.

    Call it on a view that returns latents, with the latents to approach as target. Source: AAA (1909.05921),
    section 6, attack 2.
    """
    return PGD(threat, steps, step_size, loss=negative_squared_distance, start=start)


def reconstruction_attack(
    threat: ThreatModel | str, steps: int = 20, step_size: float | None = None, weight: float = 1.0
) -> PGD:
    """Return PGD that maximizes cross-entropy plus the error of the preprocessor's image.

    Call it on a view that returns `(logits, reconstruction)`, with the target `(y, x)`. Source: AAA (1909.05921),
    section 6, attack 1; the weight is not stated.
    """
    return PGD(threat, steps, step_size, loss=CeAndReconstruction(weight))


@labeled("nearness")
def negative_squared_distance(latent: Tensor, goal: Tensor) -> Tensor:
    """Return minus the squared Euclidean distance of two latents, `(B,)`."""
    return -(latent - goal).square().flatten(1).sum(1)


@dataclass(frozen=True)
class CeAndReconstruction:
    """Cross-entropy plus `weight` times the mean squared distance of the reconstruction from the clean image."""

    weight: float = 1.0

    def __call__(self, prediction: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss `(B,)` of `(logits, reconstruction)` for `(y, x)`."""
        (logits, reconstruction), (y, x) = prediction, target
        return ce(logits, y) + self.weight * mse(reconstruction, x)

    def __str__(self) -> str:
        return f"ce + {self.weight!r} mse"


@dataclass(frozen=True, repr=False)
class WithTarget:
    """An attack that accepts labels and computes the target of its loss from them.

    Args:
        attack: the attack to run.
        make_target: `(f, x, y, rng) -> target`: clean, label_and_image or an AnotherClass.
    """

    attack: Attack
    make_target: MakeTarget

    def __str__(self) -> str:
        return f"{self.attack} at {label_of(self.make_target)}"

    @property
    def steps(self) -> int:
        """Maximum number of gradient evaluations for an image."""
        return int(getattr(self.attack, "steps", 1))

    def __call__(self, f: Callable[[Tensor], Any], x: Tensor, target: Tensor, *, rng: KeyedRNG | None = None) -> Tensor:
        """Return adversarial images for labels `(B,)`."""
        rng, target = as_rng(rng, x, str(self)), as_labels(target, len(x))
        with eval_and_no_grad(f), torch.no_grad():
            made = self.make_target(f, x, target, rng)
        return self.attack(f, x, made, rng=rng)


@labeled("clean")
def clean(f: Callable[[Tensor], Any], x: Tensor, y: Tensor, rng: KeyedRNG) -> Any:
    """Return the prediction for the clean images."""
    return f(x)


@labeled("label_and_image")
def label_and_image(f: Callable[[Tensor], Any], x: Tensor, y: Tensor, rng: KeyedRNG) -> tuple[Tensor, Tensor]:
    """Return the labels and the clean images."""
    return y, x


@dataclass(frozen=True, eq=False, repr=False)
class AnotherClass:
    """The prediction for an image of another class, drawn from a pool for each image.

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
        """Return `f` of the drawn images."""
        return f(self.x.to(x.device)[another_class(self.y.to(y.device), y, rng)])


@labeled("another_class")
def another_class(pool: Tensor, y: Tensor, rng: KeyedRNG) -> Tensor:
    """Draw for each image a place in the pool with another label, `(B,)` int64, independently of the batch.

    Args:
        pool: labels of the pool, `(N,)`.
        y: labels of the images, `(B,)`.
        rng: random numbers.

    Raises:
        InputError: the pool holds no image of another class than one of `y`.
    """
    others = pool != y[:, None]
    counts = others.sum(1)
    if not bool((counts > 0).all()):
        label = int(y[counts == 0][0])
        raise InputError(f"All {len(pool)} images of the pool have class {label}: give images of several classes.")
    chance = rng.fold_in(purpose=f"{rng.purpose}|another class").uniform(counts.double()[:, None]).squeeze(1)
    rank = (chance * counts).long()
    return (others.cumsum(1) > rank[:, None]).long().argmax(1)


@dataclass(frozen=True)
class Features:
    """A view: the features of one layer of the classifier, for the output of the defense.

    Args:
        layer: dotted name of a module in the classifier, such as its `feature_layers.third`.
    """

    layer: str

    def __str__(self) -> str:
        return f"features at {self.layer}"

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the module of images to features of a `Defended` or a `Guide`."""
        pipeline: Any = model
        guide = getattr(pipeline, "classifier", None) if hasattr(model, "defense") else pipeline
        if not hasattr(guide, "read"):
            raise InputError(f"{type(model).__name__} has no feature layers: wrap it in Guide or Defended.")
        return _Features(getattr(pipeline, "defense", nn.Identity()), guide, self.layer)


@labeled("latent")
def latent(model: nn.Module) -> nn.Module:
    """A view: the output of the defense's `encoder` or of its method `encode`, without the classifier.

    Raises:
        InputError: the defense has neither.
    """
    defense: Any = _defense(model)
    network = getattr(defense, "preprocessor", defense)
    encoder = getattr(network, "encoder", None)
    if isinstance(encoder, nn.Module):
        return encoder
    if not hasattr(network, "encode"):
        raise InputError(f"{type(network).__name__} has no encoder: give an autoencoder or a U-Net.")
    return _Latent(network)


@labeled("reconstruction")
def reconstruction(model: nn.Module) -> nn.Module:
    """A view: `(logits, reconstruction)`, the outputs of the classifier and of the defense.

    Raises:
        InputError: the model is not defended.
    """
    pipeline: Any = model
    return _Reconstruction(_defense(model), pipeline.classifier)


def _defense(model: nn.Module) -> nn.Module:
    defense = getattr(model, "defense", None)
    if not isinstance(defense, nn.Module):
        raise InputError(f"{type(model).__name__} has no defense: give a Defended.")
    return defense


@final
class _Features(nn.Module):
    """Defense, then classifier, up to a layer."""

    def __init__(self, defense: nn.Module, guide: Any, layer: str) -> None:
        super().__init__()
        self.defense, self.guide, self.layer = defense, guide, layer

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.guide.read(self.defense(x), [self.layer])[1][self.layer]
        return features


@final
class _Latent(nn.Module):
    """The lowest features of a U-Net."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        network: Any = self.network
        features: Tensor = network.encode(x)
        return features


@final
class _Reconstruction(nn.Module):
    """Defense, then classifier, and both outputs."""

    def __init__(self, defense: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.defense, self.classifier = defense, classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.defense(x)
        return self.classifier(z), z
