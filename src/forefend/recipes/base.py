"""Recipe: what a training method is, and the words it speaks with the training loop.

A recipe is a frozen dataclass whose fields are its paper's hyper-parameters and whose `updates` is its algorithm box.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError, check_classifier, check_numbers, check_preprocessor
from forefend.data import ImageDataset
from forefend.models.freezing import channels_last, frozen
from forefend.models.guide import Guide
from forefend.runtime.labels import label_of
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.parsing import as_threat_models

Memory = dict[str, Tensor]


@dataclass(frozen=True)
class Networks:
    """The networks of a training run, by role.

    Args:
        preprocessor: stands in front; image to image. The identity stands for none.
        guides: frozen classifiers it learns from; a bare one is made a Guide.
        classifier: a classifier in training, for recipes that train one. The identity stands for none.
        discriminator: tells clean images from processed ones, for recipes that need one. The identity stands for none.
    """

    preprocessor: nn.Module = field(default_factory=nn.Identity)
    guides: Sequence[Guide] = ()
    classifier: nn.Module = field(default_factory=nn.Identity)
    discriminator: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        given = self.guides
        alone = isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList)
        wrong = [given] if alone else [guide for guide in given if not isinstance(guide, nn.Module)]
        if wrong:
            raise InputError(f"Guides are a list of classifiers, torch modules each, not a {type(wrong[0]).__name__}.")
        guides = tuple(guide if isinstance(guide, Guide) else Guide(guide) for guide in given)
        object.__setattr__(self, "guides", guides)

    def crafting(self) -> Networks:
        """The same networks in crafting form: eval mode, sharing their tensors, no parameter asking for a gradient."""
        return replace(
            self,
            preprocessor=frozen(self.preprocessor),
            classifier=frozen(self.classifier),
            discriminator=frozen(self.discriminator),
        )

    def to(self, device: torch.device) -> None:
        """Move every network, in place, its weights laid out channels-last: the same numbers, convolved faster."""
        for network in (self.preprocessor, self.classifier, self.discriminator, *self.guides):
            network.to(device)
            channels_last(network)

    def check(self, x: Tensor, classes: int) -> None:
        """Refuse networks that do not fit the data; call it without gradients.

        Args:
            x: a few images, `(B, C, H, W)` in [0, 1].
            classes: how many classes the data has.

        Raises:
            InputError: one does not take such images, or does not return images or logits.
        """
        check_preprocessor(self.preprocessor, x)
        for guide in self.guides:
            check_classifier(guide, x, classes, guide.name)
        if next(self.classifier.parameters(), None) is not None:
            check_classifier(self.classifier, x, classes, "the classifier")


@dataclass(frozen=True)
class Trainable:
    """Networks that learn together, and how.

    Args:
        networks: by name; one player may own several.
        optimizer: over all their parameters; its learning rates are the largest ones.
        schedule: progress in [0, 1) to the factor on the learning rates.
    """

    networks: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[float], float]

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that the optimizer moves."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def as_it_is(attack: PGD) -> Attack:
    """The paper's own attack."""
    return attack


@dataclass(frozen=True)
class Batch:
    """One training step's images.

    Args:
        x: images, `(B, C, H, W)` in [0, 1], augmented.
        y: labels, `(B,)` int64.
        index: dataset index of each image, `(B,)` int64.
        progress: share of the training done, in [0, 1).
        rng: randomness for this step, keyed by image.
        inner: from the paper's inner attack to the one to run: the same, or one that takes fewer steps.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    progress: float
    rng: KeyedRNG
    inner: Callable[[PGD], Attack] = as_it_is


class Recipe(ABC):
    """One paper's training method, or one baseline's."""

    roles: ClassVar[tuple[str, ...]]  # of preprocessor, guides, classifier, discriminator, and source (to be retrained)
    default_preprocessor: ClassVar[str] = "narrow-unet"  # architecture, as the command line names it
    default_guides: ClassVar[tuple[str, ...]] = ("tinyresnet",)
    epochs: int
    batch_size: int
    hold_out: float = 0.0  # share of the training set kept for `validate`
    least_steps: ClassVar[int] = 1  # of the inner attack; 0 where a recipe can do without one
    asks_inner: ClassVar[bool] = False  # whether it runs `batch.inner(attack)` in place of its paper's attack

    @classmethod
    def purpose(cls) -> str:
        """The purpose in one line: the first sentence of the docstring."""
        return (inspect.getdoc(cls) or "").splitlines()[0]

    @classmethod
    def source(cls) -> str:
        """The paper that the recipe comes from, as the docstring states it; empty without one."""
        stated = re.search(r"Source: (.*?)(?:\n\n|$)", inspect.getdoc(cls) or "", flags=re.DOTALL)
        return " ".join(stated[1].split()) if stated else ""

    @abstractmethod
    def players(self, networks: Networks) -> dict[str, Trainable]:
        """Who learns, with which optimizer and schedule."""

    @abstractmethod
    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Yield `(player, loss)` in the paper's order; the step has been taken when the generator goes on.

        Args:
            train: the networks in training form.
            craft: the same networks in crafting form, for attacks.
            batch: this step's images.
            memory: tensors that the recipe keeps between steps.
        """

    def remember(self, data: ImageDataset) -> Memory:
        """The tensors that the recipe keeps for each image from epoch to epoch, addressed by dataset index."""
        return {}

    def validate(self, craft: Networks, batches: Iterable[Batch], memory: Memory) -> None:  # noqa: B027 (most need none)
        """Look at the held-out training images after an epoch, and write what follows into the memory."""

    def finish(self, networks: Networks, memory: Memory) -> None:  # noqa: B027 (most need none)
        """Leave the networks as they shall be used, after the last epoch."""

    def check(self) -> None:
        """Refuse hyper-parameters with which no training makes sense.

        Raises:
            InputError: one is out of its range.
        """
        as_threat_models(getattr(self, "threat", None) or ())
        numbers = self.settings()
        check_numbers(numbers)
        for name in ("epochs", "batch_size", "steps"):
            given = getattr(self, name, 0)
            if not hasattr(given, "__index__"):  # numpy's whole numbers have it too
                raise InputError(f"The number given for {name} is {given!r}, expected a whole one.")
        if numbers.get("steps", self.least_steps) < self.least_steps:
            raise InputError(f"The number given for steps is {numbers['steps']}, expected at least {self.least_steps}.")

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values, for configs and records."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]


def weights_of(network: nn.Module, recipe: str, role: str) -> list[nn.Parameter]:
    """The parameters that a recipe trains.

    Raises:
        InputError: there are none, because no such network was given.
    """
    parameters = list(network.parameters())
    if not parameters:
        raise InputError(f"{recipe} trains a {role}, and none was given: name one with --{role}.")
    return parameters


class HasMomentum(Protocol):
    """A recipe that trains with SGD and momentum."""

    @property
    def lr(self) -> float:
        """The largest learning rate."""

    @property
    def momentum(self) -> float:
        """SGD's momentum."""

    @property
    def weight_decay(self) -> float:
        """SGD's weight decay."""


def sgd(weights: Sequence[nn.Parameter], recipe: HasMomentum) -> torch.optim.Optimizer:
    """Stochastic gradient descent with the recipe's own numbers."""
    return torch.optim.SGD(weights, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return label_of(value)
