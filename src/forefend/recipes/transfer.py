"""Robustness under transfer learning (Davchev et al., arXiv 1905.02675)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, from_x
from forefend.checks import InputError
from forefend.losses import ce
from forefend.models.classifiers.feature_layers import feature_layers_of
from forefend.recipes.base import Batch, Memory, Networks, Recipe, Trainable, sgd, weights_of
from forefend.recipes.model_selection import keep_best, put_back_best
from forefend.recipes.schedules import step_decay
from forefend.runtime.labels import labeled
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import Linf

Layers = Callable[[nn.Module], Sequence[nn.Module]]  # a classifier's modules that are retrained
Labels = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (classifier, x, y) -> labels that the attack is given


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
    """A copy of a classifier whose final layer is new, drawn from torch's generator, for other classes.

    Args:
        classifier: the source; it is not touched.
        classes: how many logits the copy has.

    Raises:
        InputError: it has no layer that could be its head.
    """
    network = copy.deepcopy(classifier)
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
    """The data's labels; with a single-step attack they leak into the example."""
    return y


@labeled("predicted_labels")
def predicted_labels(classifier: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """What the classifier says of the clean image: no label leaks."""
    with torch.no_grad():
        said: Tensor = classifier(x).argmax(1)
    return said


@dataclass(frozen=True)
class Transfer(Recipe):
    """Retrain a source classifier, or its end, for new data (Davchev et al., arXiv 1905.02675).

    Source: Davchev et al., arXiv 1905.02675, and its authors' code. Sources come from `natural`, or from this recipe
    with layers everything on a source of the same data.

    Args:
        threat: the attacker's threat model (8/256 in [0, 1] units).
        steps: gradient steps of the attack: 0 trains naturally, 1 with FGSM, 7 with PGD.
        relative_step: step size as a share of the radius (PGD: a quarter; for FGSM give 1).
        labels: what the attack is given: true_labels, or predicted_labels against label leaking (FGSM).
        layers: what is retrained: head, last_stage or everything.
        moving_statistics: whether BatchNorm in frozen layers goes on moving, as in the authors' code.
        hold_out: share of the training set that chooses the best epoch (2,500 of 50,000).
        epochs: passes over the training set (50).
        batch_size: images a step, each used clean and attacked (100).
        lr: SGD's learning rate (0.1).
        momentum: SGD's momentum (0.9).
        weight_decay: SGD's weight decay (5e-5).
        milestones: shares of training after which the learning rate falls (every 20 of 50 epochs).
        decay: factor on the learning rate at each milestone (0.1).
    """

    roles: ClassVar[tuple[str, ...]] = ("source",)

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

    least_steps: ClassVar[int] = 0

    def players(self, networks: Networks) -> dict[str, Trainable]:
        """The classifier, of which some layers learn."""
        weights_of(networks.classifier, "Transfer learning", "classifier")
        weights = [p for module in self.layers(networks.classifier) for p in module.parameters()]
        schedule = step_decay(self.milestones, self.decay)
        return {"classifier": Trainable({"classifier": networks.classifier}, sgd(weights, self), schedule)}

    def updates(self, train: Networks, craft: Networks, batch: Batch, memory: Memory) -> Iterator[tuple[str, Tensor]]:
        """Half the loss on clean images and half on attacked ones, each in a forward pass of its own."""
        if not self.moving_statistics:
            train.classifier.eval()
            for module in self.layers(train.classifier):
                module.train()
        clean = ce(train.classifier(batch.x), batch.y).mean()
        if not self.steps:
            yield "classifier", clean
            return
        x_adv = self._attack(craft.classifier, batch, self.labels(craft.classifier, batch.x, batch.y))
        yield "classifier", (clean + ce(train.classifier(x_adv), batch.y).mean()) / 2

    def validate(self, craft: Networks, batches: Iterable[Batch], memory: Memory) -> None:
        """Keep the weights of the epoch with the best mean of clean and attacked accuracy on held-out images."""
        f, right = craft.classifier, []
        for batch in batches:
            seen = [batch.x, self._attack(f, batch, batch.y)] if self.steps else [batch.x]
            with torch.no_grad():
                right += [(f(x).argmax(1) == batch.y).float() for x in seen]
        keep_best(memory, float(torch.cat(right).mean()), f)

    def finish(self, networks: Networks, memory: Memory) -> None:
        """Put the best epoch's weights back."""
        put_back_best(memory, networks.classifier)

    def _attack(self, f: nn.Module, batch: Batch, y: Tensor) -> Tensor:
        """FGSM or PGD from x itself: the paper starts neither at random."""
        attack = PGD(self.threat, self.steps, self.relative_step * self.threat.radius, loss=ce, start=from_x)
        return attack(f, batch.x, y, rng=batch.rng)
