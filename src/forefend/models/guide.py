"""Guides: frozen classifiers that teach a preprocessor, read at named taps, and which of them serve a step."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError, unknown_name
from forefend.models.fingerprint import fingerprint, state_digest
from forefend.models.freezing import frozen


class Guide(nn.Module):
    """A classifier nobody may touch: a frozen view that shares its tensors, always in eval mode.

    Args:
        classifier: images `(B, C, H, W)` in [0, 1] to logits `(B, K)`; its own modes and flags stay as they are.
        name: what to call it in tables.
    """

    def __init__(self, classifier: nn.Module, name: str = "guide") -> None:
        super().__init__()
        self.classifier = frozen(classifier)
        self.name = name
        self._original = weakref.ref(classifier)  # only to prove that it is not touched; copies keep the reference
        self.register_load_state_dict_pre_hook(_refuse_weights)  # type: ignore[no-untyped-call]
        super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)`."""
        logits: Tensor = self.classifier(x)
        return logits

    def train(self, mode: bool = True) -> Guide:
        """Nothing: a guide stays in eval mode."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Guide:
        """Nothing: a guide's parameters never ask for a gradient."""
        return self

    def read(self, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits, and what the modules called `taps` put out on the way.

        Args:
            x: images, `(B, C, H, W)` in [0, 1].
            taps: dotted names of modules inside the classifier, e.g. `layer3`.

        Raises:
            InputError: the classifier has no module of that name.
        """
        return read(self.classifier, x, taps)

    def likeness(self) -> str:
        """Fingerprint, modes and gradient flags of the very classifier that was handed in; equal if it is untouched."""
        original = self._original()
        return state_digest(self.classifier if original is None else original)

    def fingerprint(self) -> str:
        """The classifier's fingerprint, the same as the original's."""
        return fingerprint(self.classifier)


def _refuse_weights(guide: nn.Module, *arguments: Any) -> None:
    raise InputError("A guide shares its classifier's tensors, so no weights may be loaded into it: make a new Guide.")


def read(classifier: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """A classifier's logits, and what the modules called `taps` put out on the way.

    Args:
        classifier: any network, in training or frozen.
        x: images, `(B, C, H, W)` in [0, 1].
        taps: dotted names of modules inside it, e.g. `stages.2`.

    Raises:
        InputError: the classifier has no module of that name.
    """
    activations: dict[str, Tensor] = {}
    hooks = [_tap(classifier, name).register_forward_hook(_keep(activations, name)) for name in taps]
    try:
        return classifier(x), activations
    finally:
        for hook in hooks:
            hook.remove()


def _tap(classifier: nn.Module, name: str) -> nn.Module:
    modules = dict(classifier.named_modules())
    for prefix in ("", "network."):  # a wrapped classifier's taps keep the names they have inside
        if prefix + name in modules:
            return modules[prefix + name]
    raise unknown_name(name, (m.removeprefix("network.") for m in modules if m), "tap in this classifier")


def _keep(activations: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        # A network that computes in bfloat16 answers in float32, and so must its features: losses are made of them.
        activations[name] = output.float() if output.dtype is torch.bfloat16 else output

    return hook


def check_guides(guides: Sequence[Guide]) -> None:
    """Refuse an empty list of guides.

    Raises:
        InputError: there is no guide to learn from.
    """
    if not guides:
        raise InputError("No guide was given, and this recipe learns from frozen classifiers: name at least one.")
