"""The networks that attacks see during training: views of the trained networks, or faster copies."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from forefend.models.guide import Guide
from forefend.models.optimized_copy import OptimizedCopy, optimized_copy
from forefend.recipes.base import Networks
from forefend.runtime.precision import report_fallback

# Names on the command line, and the precision of the copies; bf16 changes outputs by about a hundredth.
ATTACK_COPIES: dict[str, str | None] = {"none": None, "fp32": "fp32", "bf16": "bf16"}


class CraftingView:
    """Networks in crafting form for attacks.

    Without copies, they share every tensor with the networks in training. With copies, preprocessor, classifier and
    guides call `optimized_copy`, except while features are read: a folded layer has other outputs. The discriminator
    is not copied, as no attack uses it.

    Args:
        networks: the networks in training.
        x: a few images, `(B, C, H, W)` in [0, 1], on the networks' device.
        precision: precision of the copies, `fp32` or `bf16`; None for no copies.

    Raises:
        InputError: an unknown precision, or images that a network does not accept.
    """

    def __init__(self, networks: Networks, x: Tensor, precision: str | None) -> None:
        self.networks = networks.crafting()
        self.copies: list[OptimizedCopy] = []
        if precision is None:
            return
        report_fallback("What attacks see computes", precision, x.device)
        view = self.networks
        for network, seen in ((networks.preprocessor, view.preprocessor), (networks.classifier, view.classifier)):
            if next(network.parameters(), None) is not None:
                self.copies.append(optimized_copy(network, x, precision=precision))
                _call_copy(seen, self.copies[-1])
        guides = [Guide(guide.classifier, guide.name) for guide in networks.guides]
        for guide in guides:
            _call_copy(guide.classifier, optimized_copy(guide.classifier, x, precision=precision))
        self.networks = replace(view, guides=guides)

    def refresh(self) -> Networks:
        """Update the copies of the networks in training, and return the view."""
        for copy in self.copies:
            copy.refresh()
        return self.networks


def _call_copy(view: nn.Module, copy: OptimizedCopy) -> None:
    """Let a frozen view call its copy, except while a hook reads an inner module."""
    own = view.forward
    inner = [module for module in view.modules() if module is not view]

    def forward(x: Tensor) -> Tensor:
        return (own if any(module._forward_hooks for module in inner) else copy)(x)

    view.forward = forward
