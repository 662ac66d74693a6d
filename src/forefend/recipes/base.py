"""The interface of training methods.

A recipe is a frozen dataclass. Its fields are the paper's hyper-parameters, its `training_step` the paper's algorithm.
"""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import FunctionType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD
from forefend.checks import InputError, check_numbers
from forefend.data import ImageDataset
from forefend.losses import LABEL_LOSSES, PAIR_LOSSES
from forefend.models.freezing import channels_last, frozen
from forefend.models.guide import Guide, refuse_black_boxes
from forefend.models.output_checks import check_classifier, check_preprocessor
from forefend.recipes.state import TrainState
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.parsing import as_threat_model, as_threat_models

BEYOND = {"beyond": True}  # of a field whose default is the paper's method, so that it appears only if it is changed
Steps = Iterator[tuple[str, Tensor]]  # name and loss of each trainable, in the order of their steps


@dataclass(frozen=True)
class Networks:
    """The networks of a training run, by role; the identity means that a role is not filled.

    Args:
        preprocessor: image to image.
        guides: frozen classifiers that the preprocessor learns from; other modules are wrapped in `Guide`.
        classifier: a classifier to train.
        discriminator: tells clean images from processed ones.
    """

    preprocessor: nn.Module = field(default_factory=nn.Identity)
    guides: Sequence[Guide] = ()
    classifier: nn.Module = field(default_factory=nn.Identity)
    discriminator: nn.Module = field(default_factory=nn.Identity)

    def __post_init__(self) -> None:
        given = self.guides
        single = isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList)
        wrong = [given] if single else [guide for guide in given if not isinstance(guide, nn.Module)]
        if wrong:
            raise InputError(f"guides is or holds a {type(wrong[0]).__name__}, expected a list of torch modules.")
        guides = tuple(guide if isinstance(guide, Guide) else Guide(guide) for guide in given)
        refuse_black_boxes(guides)
        object.__setattr__(self, "guides", guides)

    def crafting(self) -> Networks:
        """Frozen views for attacks: in eval mode, with shared tensors, and without parameter gradients."""
        return replace(
            self,
            preprocessor=frozen(self.preprocessor),
            classifier=frozen(self.classifier),
            discriminator=frozen(self.discriminator),
        )

    def to(self, device: torch.device) -> None:
        """Move every network in place; weights are stored channels-last, which convolves faster."""
        for network in (self.preprocessor, self.classifier, self.discriminator, *self.guides):
            network.to(device)
            channels_last(network)

    @torch.no_grad()
    def check(self, x: Tensor, classes: int) -> None:
        """Check that the networks accept the images.

        Args:
            x: a few images, `(B, C, H, W)` in [0, 1].
            classes: number of classes of the data.

        Raises:
            InputError: a network does not accept such images, or does not return images or logits.
        """
        check_preprocessor(self.preprocessor, x)
        for guide in self.guides:
            check_classifier(guide, x, classes, guide.name)
        if next(self.classifier.parameters(), None) is not None:
            check_classifier(self.classifier, x, classes, "the classifier")


@dataclass(frozen=True)
class Trainable:
    """Networks that one optimizer trains.

    Args:
        networks: by role.
        optimizer: over all their parameters, with the largest learning rates.
        schedule: from progress in [0, 1) to the factor on the learning rates.
    """

    networks: Mapping[str, nn.Module]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[float], float]

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that the optimizer updates; frozen ones are not."""
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]


def unchanged(x: Tensor) -> Tensor:
    """Return the images: no augmentation."""
    return x


def no_attack(f: Callable[[Tensor], Any], x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
    """Return the clean images: the attack of a recipe that has none."""
    return x


@dataclass(frozen=True)
class Batch:
    """The images of one training step.

    Args:
        x: images, `(B, C, H, W)` in [0, 1], augmented.
        y: labels, `(B,)` int64.
        index: dataset index of each image, `(B,)` int64.
        progress: completed share of the training, in [0, 1).
        rng: random numbers of this step, keyed by image.
        epoch: from 0.
        rows: position of each image among the training images, from 0 to N - 1, `(B,)` int64.
        augment: this step's augmentation, for perturbations of the stored images.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    progress: float
    rng: KeyedRNG
    epoch: int = 0
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    augment: Callable[[Tensor], Tensor] = unchanged


class Recipe(ABC):
    """One paper's training method, or a baseline of one."""

    roles: ClassVar[tuple[str, ...]]  # of preprocessor, guides, classifier, discriminator, and source (to be retrained)
    default_preprocessor: ClassVar[str] = "narrow-unet"  # architecture, as the command line names it
    default_guides: ClassVar[tuple[str, ...]] = ("tinyresnet",)
    inner_attack_replaceable: ClassVar[bool] = False  # whether `TrainingConfig.inner_attack` applies
    keeps_best: ClassVar[bool] = False  # whether the paper keeps the best epoch, by a measure of its own
    min_steps: ClassVar[int] = 1  # of the inner attack
    loss_weights: ClassVar[tuple[str, ...]] = ()  # the fields that weight the terms of the loss, if all have one

    epochs: int
    batch_size: int
    lr: float  # the largest learning rate
    momentum: float  # of SGD, if the recipe uses it
    weight_decay: float  # likewise
    hold_out: float = 0.0  # share of the training set reserved for `validate`

    def __post_init__(self) -> None:
        if isinstance(getattr(self, "threat", None), str):
            object.__setattr__(self, "threat", as_threat_model(self.threat))  # type: ignore[attr-defined]

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
    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Return what is trained, by name, with optimizer and schedule.

        Raises:
            InputError: a network is missing.
        """

    def inner_attack(self) -> PGD | None:
        """The attack that the paper trains on; None for a recipe without one."""
        return None

    @abstractmethod
    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Yield `(name, loss)` for each trainable in the paper's order; its step is taken before the next loss.

        Args:
            train: the networks in training form.
            craft: the same networks in crafting form, for attacks.
            batch: this step's images.
            attack: the inner attack, or its cheaper replacement; `no_attack` for a recipe without one.
            state: the state of the training run, with the recipe's tensors in `per_image`.
        """

    def init_state(self, data: ImageDataset) -> dict[str, Tensor]:
        """Return the tensors that the recipe keeps for each image, addressed by dataset index."""
        return {}

    def validate(self, craft: Networks, batches: Iterable[Batch], state: TrainState) -> None:  # noqa: B027
        """Evaluate the held-out training images after an epoch."""

    def on_train_end(self, networks: Networks, state: TrainState) -> None:  # noqa: B027
        """Prepare the networks for use, after the last epoch."""

    def check(self) -> None:
        """Check the hyper-parameters.

        Raises:
            InputError: a hyper-parameter is out of range.
        """
        as_threat_models(getattr(self, "threat", None) or ())
        for f in fields(self):  # type: ignore[arg-type]
            _check_kind(f.name, getattr(self, f.name), f.default)
        numbers = self.settings()
        check_numbers(numbers)
        for name in ("epochs", "batch_size", "steps"):
            given = getattr(self, name, 0)
            if not hasattr(given, "__index__"):  # as the whole numbers of numpy have
                raise InputError(f"{name} is {given!r}, expected a whole number.")
        if numbers.get("steps", self.min_steps) < self.min_steps:
            raise InputError(f"steps is {numbers['steps']}, expected at least {self.min_steps}.")

        if self.loss_weights and not any(getattr(self, name) for name in self.loss_weights):
            raise InputError(f"The weights {', '.join(self.loss_weights)} are all 0, expected at least one above 0.")

    def settings(self) -> dict[str, Any]:
        """The fields as JSON values, for configs and records; without extensions at their default."""
        found = {f.name: (getattr(self, f.name), f) for f in fields(self)}  # type: ignore[arg-type]
        hidden = {name for name, (value, f) in found.items() if f.metadata == BEYOND and value == f.default}
        return {name: plain(value) for name, (value, _) in found.items() if name not in hidden}


def weights_of(network: nn.Module, recipe: str, role: str) -> list[nn.Parameter]:
    """Return the parameters to train.

    Raises:
        InputError: the network has none, because the role is not filled.
    """
    parameters = list(network.parameters())
    if not parameters:
        raise InputError(f"{recipe} trains a {role}, and none was given: give Networks a {role}.")
    return parameters


@labeled("sgd")
def sgd(weights: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Stochastic gradient descent with the recipe's settings."""
    return torch.optim.SGD(weights, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


@labeled("adam")
def adam(weights: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Adam with the recipe's learning rate; its momentum and weight decay do not apply."""
    return torch.optim.Adam(weights, recipe.lr)


Optimizer = Callable[[Sequence[nn.Parameter], Recipe], torch.optim.Optimizer]


def train_alone(
    recipe: Recipe, network: nn.Module, role: str, schedule: Callable[[float], float], optimizer: Optimizer = sgd
) -> dict[str, Trainable]:
    """Return the trainable of a recipe that trains one network."""
    weights = weights_of(network, type(recipe).__name__, role)
    return {role: Trainable({role: network}, optimizer(weights, recipe), schedule)}


def _check_kind(name: str, given: Any, default: Any) -> None:
    """Refuse a field of another kind than its default."""
    if isinstance(default, int | float) and not hasattr(given, "__float__"):
        raise InputError(f"{name} is {given!r}, expected a number such as {default:g}.")
    if isinstance(default, tuple) and not isinstance(given, list | tuple):
        raise InputError(f"{name} is {given!r}, expected several values such as {default}.")
    if isinstance(default, FunctionType) and not callable(given):
        raise InputError(f"{name} is {given!r}, expected a function such as {default.__module__}.{default.__name__}.")
    on_labels = default in LABEL_LOSSES
    if (default in PAIR_LOSSES and given in LABEL_LOSSES) or (on_labels and given in PAIR_LOSSES):
        wanted = "logits and labels" if on_labels else "two outputs of the same shape"
        raise InputError(f"{name} is {label_of(given)}, expected a loss of {wanted}.")


def plain(value: Any) -> Any:
    """Return the value of a field as JSON."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return label_of(value)
