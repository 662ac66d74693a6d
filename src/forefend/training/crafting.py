"""Crafting: the networks that attacks see during training, either live views or fast stand-ins kept up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from forefend.models.guide import Guide
from forefend.models.optimized_copy import OptimizedCopy, optimized_copy
from forefend.recipes.base import Networks
from forefend.runtime.precision import report_fallback

View = Callable[[], Networks]  # asked once before each training step
Crafting = Callable[[Networks, Tensor], View]  # the networks in training, a few images such as they see
Network = TypeVar("Network", bound=nn.Module)


def live(networks: Networks, x: Tensor) -> View:
    """The networks themselves in crafting form, sharing every tensor: what is attacked is what is trained.

    Args:
        networks: the networks in training.
        x: a few images, `(B, C, H, W)` in [0, 1].
    """
    craft = networks.crafting()
    return lambda: craft


def prepared(networks: Networks, x: Tensor, *, precision: str = "fp32") -> View:
    """Fast stand-ins (`fast.prepare`): guides made once, networks in training followed before each step.

    Whoever reads features is given the network itself: a folded layer no longer puts out what the layer does. The
    discriminator stays as it is, for no attack asks it.

    Args:
        networks: the networks in training.
        x: a few images, `(B, C, H, W)` in [0, 1], on the networks' device.
        precision: `fp32`, the same function up to rounding, or `bf16`, whose outputs are off by about a hundredth.

    Raises:
        InputError: an unknown precision, or images that a network does not take.
    """
    report_fallback("What attacks see computes", precision, x.device)
    craft = networks.crafting()
    moving = []
    for network, view in ((networks.preprocessor, craft.preprocessor), (networks.classifier, craft.classifier)):
        if next(network.parameters(), None) is not None:
            moving.append(optimized_copy(network, x, precision=precision))
            _hasten(view, moving[-1])
    guides = [Guide(guide.classifier, guide.name) for guide in networks.guides]
    for guide in guides:
        _hasten(guide.classifier, optimized_copy(guide.classifier, x, precision=precision))
    craft = replace(craft, guides=guides)

    def view_now() -> Networks:
        for stand_in in moving:
            stand_in.refresh()
        return craft

    return view_now


def prepared_bf16(networks: Networks, x: Tensor) -> View:
    """Fast stand-ins whose weights and features are bfloat16: they tell an attack where to go, faster still."""
    return prepared(networks, x, precision="bf16")


def _hasten(view: Network, stand_in: OptimizedCopy) -> None:
    """Let a frozen view answer with its stand-in, except while a hook reads what goes on inside it."""
    faithful = view.forward
    inside = [module for module in view.modules() if module is not view]

    def forward(x: Tensor) -> Tensor:
        return (faithful if any(module._forward_hooks for module in inside) else stand_in)(x)

    view.forward = forward


CRAFTING: dict[str, Crafting] = {"live": live, "prepared": prepared, "prepared-bf16": prepared_bf16}
