"""What an attacker hands in as `f` where the pipeline is random or hides its gradients: EOT and BPDA.

Both are modules, so that an attack borrows the modes of the networks inside and gives them back. They nest:
`eot(bpda_defended(defended), 20)` sees through a defense that is both random and not differentiable.
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
    """The plain mean over the first dimension: `(n, B, …)` features or logits to `(B, …)`."""
    return outputs.mean(0)


@labeled("identity")
def identity(x: Tensor) -> Tensor:
    """`x` itself: BPDA's usual stand-in, as a preprocessor's output is near its input."""
    return x


def eot(f: Callable[[Tensor], Tensor], n: int, average: Callable[[Tensor], Tensor] = mean_probability) -> nn.Module:
    """Expectation over transformation: a module that runs `f` n times on the same images and averages what it says.

    The randomness is `f`'s own: seed torch, and the result is the same again. A gradient costs n forwards and n
    backwards, and memory for n graphs at once. With n = 1 and the default average, `ce`, `margin` and `dlr` are what
    they are on `f`.

    Args:
        f: a random pipeline, images to one tensor; it must be as random in eval mode as it will be when judged.
        n: how many forwards, at least one.
        average: from the n stacked outputs to one: mean_probability for logits, mean_output for features.

    Raises:
        InputError: n is below one; when called, if `f` returns something else than one tensor.

    Source: Athalye et al., 1707.07397, section 2.1.
    """
    return _Expectation(f, n, average)


def bpda(preprocessor: nn.Module, backward: Callable[[Tensor], Tensor] = identity) -> nn.Module:
    """Backward pass differentiable approximation: the preprocessor's own images, another function's gradient.

    The forward is bit for bit that of `preprocessor`, which need not be differentiable, nor even written in torch
    throughout; the gradient with respect to the images is that of `backward`, evaluated at the same images.

    Args:
        preprocessor: images to images.
        backward: a differentiable stand-in of the same output shape: the identity, a blur, a network.

    Raises:
        InputError: when called, if the two put out different shapes.

    Source: Athalye, Carlini and Wagner, 1802.00420, section 4.1.
    """
    return _Approximation(preprocessor, backward)


def bpda_defended(model: nn.Module, backward: Callable[[Tensor], Tensor] = identity) -> nn.Module:
    """A view: the same defended classifier with BPDA round its defense; an undefended one as it is.

    Args:
        model: a `Defended`, or a classifier without a defense.
        backward: the stand-in for the whole defense.
    """
    pipeline: Any = model
    if not hasattr(model, "defense"):
        return model
    # The pipeline's own type, as attacks import no networks; it takes the frozen classifier as it stands.
    twin: nn.Module = type(pipeline)(bpda(pipeline.defense, backward), pipeline.classifier)
    return twin


@final
class _Expectation(nn.Module):
    """`f`, averaged over n forwards."""

    def __init__(self, f: Callable[[Tensor], Tensor], n: int, average: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        if n < 1:
            raise InputError(f"EOT over {n} forwards averages nothing: give at least 1.")
        self.f, self.n, self.average = f, n, average

    def __str__(self) -> str:
        return f"EOT-{self.n}({_called(self.f)}, {_called(self.average)})"

    def forward(self, x: Tensor) -> Tensor:
        """The average, `(B, …)`."""
        outputs = [self.f(x) for _ in range(self.n)]
        if not isinstance(outputs[0], Tensor):
            raise InputError(
                f"EOT averages one tensor, and the pipeline returns a {type(outputs[0]).__name__}: "
                "hand in a view that returns logits or features alone."
            )
        return self.average(torch.stack(outputs))


@final
class _Approximation(nn.Module):
    """`preprocessor` forwards, `stand_in` backwards."""

    def __init__(self, preprocessor: nn.Module, stand_in: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.preprocessor, self.stand_in = preprocessor, stand_in

    def __str__(self) -> str:
        return f"BPDA({_called(self.preprocessor)}, {_called(self.stand_in)})"

    def forward(self, x: Tensor) -> Tensor:
        """The preprocessor's images."""
        with torch.no_grad():
            z = self.preprocessor(x.detach())
        near = self.stand_in(x)
        if near.shape != z.shape:
            raise InputError(
                f"BPDA's stand-in puts out {tuple(near.shape)} where the preprocessor puts out {tuple(z.shape)}: "
                "give one with the same output shape."
            )
        through: Tensor = _Substitution.apply(z, near)  # type: ignore[no-untyped-call]
        return through


@final
class _Substitution(torch.autograd.Function):
    """The value of the first argument with the gradient of the second."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, near: Tensor) -> Tensor:
        return value.clone()  # not the argument itself: the classifier may begin with an operation in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def _called(f: Callable[..., Any]) -> str:
    """A name without a memory address or a printed network."""
    if not isinstance(f, nn.Module):
        return label_of(f)
    return str(f) if isinstance(f, _Expectation | _Approximation) else type(f).__name__
