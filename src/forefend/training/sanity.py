"""Checks that networks can be trained, and that training left them usable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.guide import Guide
from forefend.recipes.base import Networks, Recipe, Trainable


def check_roles(recipe: Recipe, networks: Networks) -> None:
    """Refuse a network that the recipe does not use.

    Raises:
        InputError: a role is filled that the recipe does not have.
    """
    if not hasattr(recipe, "roles"):  # a recipe that no command trains need not name them
        return
    used = {"classifier" if role == "source" else role for role in recipe.roles}
    given = {name: getattr(networks, name) for name in ("preprocessor", "classifier", "discriminator")}
    filled = {name for name, network in given.items() if type(network) is not nn.Identity}
    filled |= {"guides"} if networks.guides else set()
    if unused := sorted(filled - used):
        name = type(recipe).__name__
        raise InputError(
            f"{name} has no role for the {unused[0]} given, only for {' and '.join(sorted(used))}: remove it."
        )


def check_trainables(trainables: Mapping[str, Trainable], guides: Iterable[Guide]) -> None:
    """Refuse networks without a parameter to train, or that share weights with a guide.

    Raises:
        InputError: parameters are frozen or made in inference mode, or a trained network is in a guide.
    """
    fixed = {p.data_ptr() for guide in guides for p in guide.parameters()}
    for name, trainable in trainables.items():
        weights = trainable.parameters()
        if not weights:
            raise InputError(f"All parameters of the {name} are frozen: call requires_grad_(True) on what to train.")
        if any(p.is_inference() for p in weights):
            raise InputError(
                f"The {name} was made inside torch.inference_mode, which forbids training: make it outside."
            )
        if fixed.intersection(p.data_ptr() for p in weights):
            raise InputError(
                f"The {name} shares weights with a guide, which training must not change: give it a network of its "
                "own, such as copy.deepcopy(network)."
            )


@torch.no_grad()
def check_trained(trained: Iterable[nn.Module], views: Networks, x: Tensor, step: int) -> None:
    """Refuse weights that training has destroyed, before they are saved.

    Args:
        trained: the networks in training.
        views: all networks, frozen.
        x: a few different images, `(B, C, H, W)`.
        step: the number of steps taken, for the message.

    Raises:
        InputError: weights or outputs are NaN or infinite, or equal for all images.
    """
    for tensor in (t for network in trained for t in network.state_dict().values()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"Weights are NaN or infinite after step {step}, expected finite numbers: lower lr.")
    for role in ("preprocessor", "classifier"):
        network: nn.Module = getattr(views, role)
        if next(network.parameters(), None) is None:
            continue
        y = network(x)
        if not bool(y.isfinite().all()):
            raise InputError(f"The {role} returns NaN or infinite numbers after step {step}: lower lr.")
        if bool((x != x[:1]).any()) and bool((y == y[:1]).all()):
            raise InputError(f"The {role} returns the same for every image after step {step}: lower lr.")
