"""Robustness under transfer learning (Davchev et al., arXiv 1905.02675)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forefend.attacks.base import Attack
from forefend.attacks.pgd import PGD, from_x
from forefend.checks import InputError, predictions
from forefend.losses import ce
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.models.freezing import deep_copy
from forefend.recipes.base import Batch, Networks, Recipe, Steps, Trainable, sgd, weights_of
from forefend.recipes.model_selection import keep_best, restore_best
from forefend.recipes.schedules import step_decay
from forefend.recipes.state import TrainState
from forefend.runtime.labels import labeled
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

Layers = Callable[[nn.Module], Sequence[nn.Module]]  # the modules of a classifier to retrain
Labels = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (classifier, x, y) -> labels for the attack


@labeled("head")
def head(classifier: nn.Module) -> Sequence[nn.Module]:
    """The final linear layer ("1" in the paper's tables)."""
    layers = [m for m in classifier.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1:]


@labeled("last_stage")
def last_stage(classifier: nn.Module) -> Sequence[nn.Module]:
    """The last stage of residual blocks, and the final layer ("18")."""
    return [classifier.get_submodule(feature_layers_of(classifier).stages[-1]), *head(classifier)]


@labeled("everything")
def everything(classifier: nn.Module) -> Sequence[nn.Module]:
    """The whole network ("56")."""
    return [classifier]


def with_new_head(classifier: nn.Module, classes: int) -> nn.Module:
    """Copy a classifier with a new final layer, drawn from torch's generator, for other classes.

    Args:
        classifier: the source, which stays unchanged.
        classes: number of logits of the copy.

    Raises:
        InputError: the classifier has no linear or convolutional layer.
    """
    network = deep_copy(classifier)
    last = next(iter(head(network)), None)
    if not isinstance(last, nn.Linear | nn.Conv2d):
        raise InputError("The source has no linear or convolutional layer to make a new head of.")
    owner, _, name = next(n for n, m in network.named_modules() if m is last).rpartition(".")
    settings: dict[str, Any] = {"bias": last.bias is not None}
    if isinstance(last, nn.Conv2d):
        settings |= {"kernel_size": last.kernel_size, "stride": last.stride, "padding": last.padding}
        new: nn.Module = nn.Conv2d(last.in_channels, classes, **settings)
    else:
        new = nn.Linear(last.in_features, classes, **settings)
    setattr(network.get_submodule(owner), name, new)
    return network


@labeled("true_labels")
def true_labels(classifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The labels of the data, which a single-step attack leaks into the example."""
    return y


@labeled("predicted_labels")
def predicted_labels(classifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The prediction on the clean image, so that no label leaks."""
    with torch.no_grad():
        return predictions(classifier(x))


@dataclass(frozen=True)
class Transfer(Recipe):
    """Retrain a source classifier, or its end, for new data (Davchev et al., arXiv 1905.02675).

    Source: Davchev et al., arXiv 1905.02675, and its authors' code. Sources come from `natural`, or from this recipe
    with layers everything on a source of the same data.

    Args:
        threat: the attacker's threat model (8/256 in [0, 1] units).
        steps: gradient steps of the attack: 0 trains naturally, 1 with FGSM, 7 with PGD.
        relative_step: step size as a share of the radius (PGD: a quarter; for FGSM give 1).
        labels: labels for the attack: true_labels, or predicted_labels against label leaking (FGSM).
        layers: which layers to retrain: head, last_stage or everything.
        moving_statistics: whether BatchNorm of frozen layers updates its statistics, as in the authors' code.
        hold_out: share of the training set that chooses the best epoch (2,500 of 50,000).
        epochs: passes over the training set (50).
        batch_size: images a step, each used clean and attacked (100).
        lr: SGD's learning rate (0.1).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (5e-5).
        milestones: shares of training after which the learning rate falls (every 20 of 50 epochs).
        decay: factor on the learning rate at each milestone (0.1).
    """

    roles = ("source",)
    min_steps = 0
    keeps_best = True

    threat: ThreatModel = Linf(8 / 256)
    steps: int = 7
    relative_step: float = 0.25
    labels: Labels = true_labels
    layers: Layers = everything
    moving_statistics: bool = True
    hold_out: float = 0.05
    epochs: int = 50
    batch_size: int = 100
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-5
    milestones: tuple[float, ...] = (0.4, 0.8)
    decay: float = 0.1

    def configure_optimizers(self, networks: Networks) -> dict[str, Trainable]:
        """Train some layers of the classifier."""
        weights_of(networks.classifier, "Transfer learning", "classifier")
        weights = [p for module in self.layers(networks.classifier) for p in module.parameters()]
        schedule = step_decay(self.milestones, self.decay)
        return {"classifier": Trainable({"classifier": networks.classifier}, sgd(weights, self), schedule)}

    def inner_attack(self) -> PGD | None:
        """FGSM or PGD, both from x itself; None where steps is 0."""
        size = self.relative_step * self.threat.radius
        return PGD(self.threat, self.steps, size, loss=ce, start=from_x) if self.steps else None

    def training_step(self, train: Networks, craft: Networks, batch: Batch, attack: Attack, state: TrainState) -> Steps:
        """Average the losses of clean and attacked images, each in its own forward pass."""
        if not self.moving_statistics:
            train.classifier.eval()
            for module in self.layers(train.classifier):
                module.train()
        clean = ce(train.classifier(batch.x), batch.y).mean()
        if not self.steps:
            yield "classifier", clean
            return
        labels = self.labels(craft.classifier, batch.x, batch.y)
        x_adv = attack(craft.classifier, batch.x, labels, rng=batch.rng)
        yield "classifier", (clean + ce(train.classifier(x_adv), batch.y).mean()) / 2

    def validate(self, craft: Networks, batches: Iterable[Batch], state: TrainState) -> None:
        """Keep the weights of the epoch with the best mean of clean and attacked accuracy on held-out images."""
        f, attack, right = craft.classifier, self.inner_attack(), []
        for batch in batches:
            seen = [batch.x, attack(f, batch.x, batch.y, rng=batch.rng)] if attack else [batch.x]
            with torch.no_grad():
                right += [(predictions(f(x), batch.index) == batch.y).float() for x in seen]
        keep_best(state, float(torch.cat(right).mean()), f)

    def on_train_end(self, networks: Networks, state: TrainState) -> None:
        """Restore the weights of the best epoch."""
        restore_best(state, networks.classifier)
