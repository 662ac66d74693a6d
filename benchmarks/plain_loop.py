"""Adversarial training of a preprocessor as papers publish it: the baseline of our training step.

Plain PyTorch in float32, channels first. Every parameter requires a gradient, and `loss.backward()` computes all of
them at each step of the attack, which attacks the networks in eval mode, like ours. Nothing is slowed on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Settings:
    """The hyper-parameters of RTFE (arXiv 2209.06931).

    Args:
        radius: of the l∞ ball.
        steps: of the attack.
        step_size: of the attack.
        lr: learning rate of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        milestones: steps after which the learning rate is divided by ten.
    """

    radius: float
    steps: int
    step_size: float
    lr: float
    momentum: float
    weight_decay: float
    milestones: list[int]


def train(
    g: nn.Module, f: nn.Module, batches: Iterable[tuple[Tensor, Tensor, Tensor]], settings: Settings
) -> Iterator[float]:
    """Train g in front of f, and yield the loss after each step.

    Args:
        g: the preprocessor.
        f: the frozen classifier.
        batches: images, labels, and the noise in [-1, 1] that the attack starts from.
        settings: the hyper-parameters.
    """
    optimizer = torch.optim.SGD(
        g.parameters(), settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, settings.milestones, 0.1)
    f.eval()
    for batch in batches:
        x = batch[0]
        g.eval()
        x_adv = attack(g, f, batch, settings)
        g.train()
        with torch.no_grad():
            target = f(x)
        optimizer.zero_grad()
        loss = F.huber_loss(f(g(x_adv)), target)
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield loss.item()


def attack(g: nn.Module, f: nn.Module, batch: tuple[Tensor, Tensor, Tensor], settings: Settings) -> Tensor:
    """Run PGD on the cross-entropy."""
    x, y, noise = batch
    x_adv = (x + settings.radius * noise).clamp(0, 1)
    for _ in range(settings.steps):
        x_adv.requires_grad_()
        loss = F.cross_entropy(f(g(x_adv)), y)
        loss.backward()
        x_adv = x_adv.detach() + settings.step_size * x_adv.grad.sign()
        x_adv = torch.min(torch.max(x_adv, x - settings.radius), x + settings.radius).clamp(0, 1)
    return x_adv
