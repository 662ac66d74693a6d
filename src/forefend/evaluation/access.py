"""What an attacker computes with: the model, the classifier, a surrogate, an average or a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from forefend.attacks.eot_bpda import bpda, bpda_defended, eot
from forefend.models.defended import Defended, pipelines
from forefend.models.fingerprint import fingerprint
from forefend.models.optimized_copy import optimized_copy
from forefend.runtime.labels import label_of, labeled
from forefend.runtime.precision import effective_precision

Function = Callable[[Tensor], Any]  # images to what the attack computes its loss from
View = Callable[[nn.Module], Function]


@labeled("white_box")
def white_box(model: nn.Module) -> nn.Module:
    """Return the whole model: the attacker knows everything."""
    return model


@labeled("oblivious")
def oblivious(model: nn.Module) -> nn.Module:
    """Return the classifier alone: the attacker does not know of the defense."""
    return model.classifier if isinstance(model, Defended) else model


@labeled("through_bpda")
def through_bpda(model: nn.Module) -> nn.Module:
    """Return the model with the identity as the backward pass of its defense (BPDA)."""
    return bpda_defended(model)


@labeled("black_box")
def queries(model: nn.Module) -> Function:
    """Return the answers of the model without gradient: the attacker can only ask."""

    @torch.no_grad()
    def answers(x: Tensor) -> Any:
        return model(x)

    return answers


@dataclass(frozen=True)
class Surrogate:
    """A view of another classifier: the attacker hopes that its adversarial examples transfer.

    Args:
        network: images in [0, 1] to logits.
        name: its name in tables and records.
    """

    network: nn.Module
    name: str

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the surrogate for any model."""
        return self.network

    def __str__(self) -> str:
        return f"transfer from {self.name} {fingerprint(self.network)}"


@dataclass(frozen=True)
class CraftedOn:
    """A view of a source, whose adversarial images are crafted once and shown to every model.

    They are the images of a white-box attack on the source: random numbers do not depend on the source.

    Args:
        network: images in [0, 1] to logits.
        name: its name in tables and records.
    """

    network: nn.Module
    name: str

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the source for any model."""
        return self.network

    def __str__(self) -> str:
        return f"crafted on {self.name} {fingerprint(self.network)}"


@dataclass(frozen=True)
class GradientOf:
    """A view of a model without a gradient: its own outputs, with the gradient of another network (BPDA).

    Args:
        network: images in [0, 1] to logits, such as the network that the model was quantized from.
        name: its name in records.
    """

    network: nn.Module
    name: str

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the model whose backward pass is that of the network."""
        return bpda(model, self.network)

    def __str__(self) -> str:
        return f"with the gradient of {self.name} {fingerprint(self.network)}"


@dataclass(frozen=True)
class Together:
    """A view of the model and of further classifiers, behind the defense of the model if it has one.

    Args:
        ensemble: classifiers, by name.
    """

    ensemble: Mapping[str, nn.Module]

    def __call__(self, model: nn.Module) -> Function:
        """Return a function of images to the logits of the model, then of each further classifier."""
        if isinstance(model, Defended):
            return pipelines(model.defense, [model.classifier, *self.ensemble.values()])
        return pipelines(nn.Identity(), [model, *self.ensemble.values()])

    def __str__(self) -> str:
        return "together with " + ", ".join(f"{name} {fingerprint(f)}" for name, f in self.ensemble.items())


@dataclass(frozen=True)
class Access:
    """What an attacker computes with; the evaluated model itself decides each success.

    Args:
        view: from the evaluated model to the attacked function: `white_box`, `oblivious`,
            `through_bpda`, `queries`, a `Surrogate`, or any function with a stable name.
        eot_samples: forward passes that one output averages (expectation over transformation); 0
            for none.
        precision: `fp32` or `bf16` to compute with an optimized copy of the view; None to compute
            with the view.
    """

    view: View = white_box
    eot_samples: int = 0
    precision: str | None = None

    def __call__(self, model: nn.Module) -> Function:
        """Return the attacked function of `model`; a copy is made on the first batch."""
        f = self.view(model)
        if self.precision and isinstance(f, nn.Module):
            f = _LazyCopy(f, self.precision)
        return eot(f, self.eot_samples) if self.eot_samples else f

    def __str__(self) -> str:
        average = f"eot {self.eot_samples} " if self.eot_samples else ""
        return f"{average}{label_of(self.view)}{f' in {self.precision}' if self.precision else ''}"

    def on(self, device: torch.device) -> Access:
        """Return the access on `device`, where copies in bf16 may fall back to fp32."""
        return replace(self, precision=effective_precision(self.precision, device)) if self.precision else self


class _LazyCopy(nn.Module):
    """An optimized copy of a network, made from the first images it is given."""

    def __init__(self, network: nn.Module, precision: str) -> None:
        super().__init__()
        self.network, self.precision = network, precision
        self.copies: list[nn.Module] = []  # not a child module, which would move and change mode with this one

    def forward(self, x: Tensor) -> Tensor:
        if not self.copies:
            self.copies.append(optimized_copy(self.network, x.detach()[:8], precision=self.precision))
        logits: Tensor = self.copies[0](x)
        return logits
