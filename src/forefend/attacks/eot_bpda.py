"""EOT and BPDA: what to attack where the pipeline is randomized or not differentiable.

Both are modules and can be nested: `eot(bpda_defended(defended), 20)` handles a defense that is both randomized and
not differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.losses import mean_probability
from forefend.runtime.labels import label_of, labeled


@labeled("mean_output")
def mean_output(outputs: Tensor) -> Tensor:
    """Return the mean over the first dimension, from `(n, B, …)` to `(B, …)`."""
    return outputs.mean(0)


@labeled("identity")
def identity(x: Tensor) -> Tensor:
    """Return `x`: the usual backward function of BPDA, as a preprocessor's output is near its input."""
    return x


def eot(f: Callable[[Tensor], Tensor], n: int, average: Callable[[Tensor], Tensor] = mean_probability) -> nn.Module:
    """Return a module that averages n forward passes: expectation over transformation.

    The randomness is that of `f`: with the same torch seed, the result is the same. A gradient costs n forward and
    backward passes and the memory of n graphs. With n = 1 and the default average, `ce`, `margin` and `dlr` are
    those of `f`.

    Args:
        f: a randomized pipeline, images to one tensor, that is random in eval mode.
        n: number of forward passes, at least one.
        average: from the n stacked outputs to one: mean_probability for logits, mean_output for features.

    Returns:
        A module, images to the averaged output `(B, …)`.

    Raises:
        InputError: n is below one; when called, if `f` returns something other than one tensor.

    Source: Athalye et al., 1707.07397, section 2.1.

    Example:
        >>> import torch
        >>> from forefend.attacks import PGD, eot
        >>> randomized = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> x = torch.full((3, 1, 2, 2), 0.5)
        >>> eot(randomized, 20)(x).shape
        torch.Size([3, 2])
    """
    return _Expectation(f, n, average)


def bpda(preprocessor: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] = identity) -> nn.Module:
    """Return a module with the forward pass of a preprocessor and the gradient of another function.

    Args:
        preprocessor: images to images; it need not be differentiable.
        backward: a differentiable approximation with the same output shape: the identity, a blur, a network.

    Returns:
        A module whose output is bit for bit that of `preprocessor`.

    Raises:
        InputError: when called, if the two outputs differ in shape.

    Source: Athalye, Carlini and Wagner, 1802.00420, section 4.1.

    Example:
        >>> import torch
        >>> from forefend.attacks import bpda
        >>> x = torch.tensor([[[[0.2, 0.7]]]], requires_grad=True)
        >>> bpda(torch.round)(x).sum().backward()
        >>> x.grad
        tensor([[[[1., 1.]]]])
    """
    return _Approximation(preprocessor, backward)


def bpda_defended(model: nn.Module, backward: Callable[[Tensor], Tensor] = identity) -> nn.Module:
    """Return a defended classifier with BPDA around its defense; other models are returned unchanged.

    Args:
        model: a `Defended`, or a classifier without a defense.
        backward: approximation of the whole defense.
    """
    pipeline: Any = model
    if not hasattr(model, "defense"):
        return model
    view: nn.Module = type(pipeline)(bpda(pipeline.defense, backward), pipeline.classifier)
    return view


@final
class _Expectation(nn.Module):
    """`f` averaged over n forward passes."""

    def __init__(self, f: Callable[[Tensor], Tensor], n: int, average: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if n < 1:
            raise InputError(f"EOT has {n} forward passes: give at least 1.")
        self.f, self.n, self.average = f, n, average

    def __str__(self) -> str:
        return f"EOT-{self.n}({_name_of(self.f)}, {_name_of(self.average)})"

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self.f(x) for _ in range(self.n)]
        if not isinstance(outputs[0], Tensor):
            raise InputError(
                f"EOT averages one tensor and the pipeline returns a {type(outputs[0]).__name__}: "
                "give a view that returns only logits or features."
            )
        return self.average(torch.stack(outputs))


@final
class _Approximation(nn.Module):
    """The forward pass of `preprocessor` with the gradient of `approximation`."""

    def __init__(self, preprocessor: Callable[[Tensor], Tensor], approximation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.preprocessor, self.approximation = preprocessor, approximation

    def __str__(self) -> str:
        return f"BPDA({_name_of(self.preprocessor)}, {_name_of(self.approximation)})"

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = self.preprocessor(x.detach())
        near = self.approximation(x)
        if near.shape != z.shape:
            raise InputError(
                f"The backward function of BPDA returns {tuple(near.shape)} and the preprocessor {tuple(z.shape)}: "
                "give one with the same output shape."
            )
        through: Tensor = _Substitution.apply(z, near)  # type: ignore[no-untyped-call]
        return through


@final
class _Substitution(torch.autograd.Function):
    """The value of the first argument with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, near: Tensor) -> Tensor:
        return value.clone()  # a copy, as the classifier may begin with an operation in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def _name_of(f: Callable[..., Any]) -> str:
    """Return a name without a memory address or a printed network."""
    if not isinstance(f, nn.Module):
        return label_of(f)
    return str(f) if isinstance(f, _Expectation | _Approximation) else type(f).__name__
