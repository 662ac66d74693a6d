"""Guides: frozen classifiers that a preprocessor learns from, and the features at their named modules."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError, unknown_name
from forefend.models.classifiers.black_box import black_box_in
from forefend.models.fingerprint import fingerprint, raw_bytes, state_digest
from forefend.models.freezing import check_module, frozen

MOST_WRAPPERS = 4  # of size, normalization and output, each of which holds its `network`


class Guide(nn.Module):
    """A frozen view of a classifier: it shares the tensors and stays in eval mode.

    Other weights are loaded into tensors of the guide's own: the classifier that was given is never changed. A guide
    that was pickled has tensors of its own.

    Args:
        classifier: images `(B, C, H, W)` in [0, 1] to logits `(B, K)`; its modes and flags do not change.
        name: the name in tables.
    """

    def __init__(self, classifier: nn.Module, name: str = "guide") -> None:
        super().__init__()
        check_module(classifier, "a classifier")
        self.classifier = frozen(classifier)
        self.name = name
        self._original = _Original(classifier)
        self.register_load_state_dict_pre_hook(_keep_original)  # type: ignore[no-untyped-call]
        super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, K)`."""
        logits: Tensor = self.classifier(x)
        return logits

    def train(self, mode: bool = True) -> Guide:
        """Do nothing: a guide stays in eval mode."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Guide:
        """Do nothing: the parameters of a guide require no gradient."""
        return self

    def read(self, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits and features, as `read` returns them."""
        return read(self.classifier, x, taps)

    def state_digest(self) -> str:
        """Digest of the given classifier's tensors, modes and gradient flags; equal as long as it is unchanged."""
        original = self._original()
        return state_digest(self.classifier if original is None else original)

    def fingerprint(self) -> str:
        """The fingerprint of the classifier."""
        return fingerprint(self.classifier)


class _Original:
    """A weak reference to a guide's classifier, to check that nothing changed it; empty once the guide was pickled."""

    def __init__(self, classifier: nn.Module | None = None) -> None:
        self._reference = None if classifier is None else weakref.ref(classifier)

    def __call__(self) -> nn.Module | None:
        return None if self._reference is None else self._reference()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Original:
        return self

    def __reduce__(self) -> tuple[type[_Original], tuple[()]]:
        return _Original, ()


def _keep_original(guide: nn.Module, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
    """Give a guide tensors of its own before other weights are loaded into it."""
    held = {prefix + name: tensor for name, tensor in guide.state_dict().items()}
    if any(_differ(state[name], tensor) for name, tensor in held.items() if name in state):
        for tensor in chain(guide.parameters(), guide.buffers()):
            tensor.data = tensor.data.clone()
        guide._original = _Original()  # type: ignore[assignment]


def _differ(given: Any, held: Tensor) -> bool:
    alike = isinstance(given, Tensor) and (given.dtype, given.shape) == (held.dtype, held.shape)
    return not alike or raw_bytes(given) != raw_bytes(held)


def read(classifier: nn.Module, x: Tensor, taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the logits and the outputs of some modules.

    Args:
        classifier: any network.
        x: images, `(B, C, H, W)` in [0, 1].
        taps: dotted names of modules, such as `stages.2`.

    Returns:
        Logits `(B, K)`, and the output of each module by name.

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
    for wrappers in range(MOST_WRAPPERS + 1):  # they do not change the names of taps
        if "network." * wrappers + name in modules:
            return modules["network." * wrappers + name]
    raise unknown_name(name, (re.sub(r"^(network\.)+", "", m) for m in modules if m), "tap in this classifier")


def _keep(activations: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        # Losses are computed in float32, also of a network that computes in bfloat16.
        activations[name] = output.float() if output.dtype is torch.bfloat16 else output

    return hook


def pipeline_features(preprocessor: nn.Module, classifier: nn.Module, tap: str) -> Callable[[Tensor], Tensor]:
    """Return the function from images to the output of the module `tap` behind the preprocessor."""

    def features(x: Tensor) -> Tensor:
        return read(classifier, preprocessor(x), [tap])[1][tap]

    return features


def refuse_black_boxes(guides: Sequence[Guide]) -> None:
    """Refuse guides without a gradient, which all training follows.

    Raises:
        InputError: one is a black box.
    """
    for guide in guides:
        if box := black_box_in(guide):
            raise InputError(
                f"The guide {box.name} is a black box, and training follows a guide's gradient: train with another "
                "classifier of the same data, and put the defense in front of the black box."
            )


def check_guides(guides: Sequence[Guide]) -> None:
    """Check that there is a guide.

    Raises:
        InputError: there is none.
    """
    if not guides:
        raise InputError("No guide was given, and this recipe learns from frozen classifiers: name at least one.")
