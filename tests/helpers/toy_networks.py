"""Tiny networks and images for tests of training and evaluation; the networks hold BatchNorm unless told otherwise."""

from __future__ import annotations

import itertools
from dataclasses import fields
from functools import cache
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from forefend import data
from forefend.data import ImageDataset
from forefend.models.classifiers import FeatureLayers
from forefend.models.guide import Guide
from forefend.recipes.base import Networks, Recipe
from forefend.training.config import TrainingConfig
from forefend.training.trainer import fit

CLASSES = 4
SIZE = 6


def toy_images(count: int = 40, *, seed: int = 0, split: str = "train") -> ImageDataset:
    """Noise with a bright row that tells the class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    x = 0.3 * torch.rand(count, 1, SIZE, SIZE, generator=generator)
    x[torch.arange(count), 0, y] += 0.5
    return data.from_tensors("toy", x, y, split=split)


def classifier(seed: int = 0, *, batch_norm: bool = True) -> nn.Sequential:
    """Images to logits, in eval mode; a feature map may be read at each of its first three modules."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * SIZE * SIZE, CLASSES)
        )
    network.feature_layers = FeatureLayers(stages=("1",), features="2", third="0")  # type: ignore[assignment]
    return network.eval()


@cache
def trained_classifier() -> nn.Module:
    """A classifier after a few steps on its images."""
    x, y, _ = toy_images().batch(torch.arange(40))
    network = classifier()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network


def preprocessor(seed: int = 0, *, batch_norm: bool = True) -> nn.Sequential:
    """Images to images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Sigmoid())


def discriminator(seed: int = 0) -> nn.Sequential:
    """Images to one logit each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU())
        return nn.Sequential(*body, nn.Flatten(), nn.Linear(4 * (SIZE - 2) ** 2, 1), nn.Flatten(0))


def toy_cast(*, batch_norm: bool = True, guides: int = 2) -> Networks:
    """Every role filled: a preprocessor, guides, a classifier in training and a discriminator."""
    return Networks(
        preprocessor(3, batch_norm=batch_norm),
        [Guide(classifier(seed), f"guide {seed}") for seed in range(1, guides + 1)],
        classifier(4, batch_norm=batch_norm),
        discriminator(5),
    )


def train(recipe: Recipe, images: ImageDataset, networks: Networks, **options: Any) -> Networks:
    """`fit` on the CPU whatever the machine has, with the options of TrainingConfig by name; returns the networks."""
    config = TrainingConfig(**{f.name: options.pop(f.name) for f in fields(TrainingConfig) if f.name in options})
    own = with_roles_of(recipe, networks)
    fit(recipe, images, own, accelerator=Accelerator(cpu=True), config=config, **options)
    return networks


def with_roles_of(recipe: Recipe, networks: Networks) -> Networks:
    """The networks that a recipe has a role for; `fit` refuses others."""
    if not hasattr(recipe, "roles"):
        return networks
    roles = {"classifier" if role == "source" else role for role in recipe.roles}
    return Networks(**{role: getattr(networks, role) for role in roles})


def trained(networks: Networks) -> list[Tensor]:
    """Copies of every parameter and buffer that training could have moved."""
    return [t.detach().clone() for t in _tensors(networks.preprocessor, networks.classifier, networks.discriminator)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    """Equal bit for bit."""
    return len(a) == len(b) and all(map(torch.equal, a, b))


def held(network: nn.Module) -> tuple[list[Tensor], list[bool], list[bool]]:
    """Copies of a network's tensors, the modes of its modules and the gradient flags of its parameters."""
    tensors = [t.detach().clone() for t in _tensors(network)]
    return tensors, [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]


def untouched(network: nn.Module, before: tuple[list[Tensor], list[bool], list[bool]]) -> bool:
    """Whether the network is, to the bit, mode and flag, what `held` saw."""
    tensors, modes, flags = held(network)
    return same(tensors, before[0]) and (modes, flags) == before[1:]


class Stopping:
    """An augmentation that changes nothing and raises when it is asked for batch number `last`."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, x: Tensor, rng: object) -> Tensor:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return x


def _tensors(*nets: nn.Module) -> list[Tensor]:
    return list(itertools.chain.from_iterable((*n.parameters(), *n.buffers()) for n in nets))
