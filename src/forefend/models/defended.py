"""A classifier behind a preprocessor, and what an attacker may know of the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.defense import Defense
from forefend.models.freezing import check_module
from forefend.models.guide import Guide
from forefend.runtime.labels import labeled


class Defended(nn.Module):
    """A defended classifier: images in [0, 1] to logits, without clamping.

    The classifier is held as a frozen view: training or moving this module leaves the original's parameters, buffers,
    modes and gradient flags unchanged.

    Args:
        defense: a `Defense` or any preprocessor.
        classifier: images in [0, 1] to logits.

    Raises:
        InputError: one of them is no module, or the classifier is a `Defense`.

    Example:
        >>> import torch
        >>> import forefend as ff
        >>> classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        >>> model = ff.Defended(ff.preprocessors.build("narrow-unet", channels=1), classifier)
        >>> model(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(self, defense: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        check_module(defense, "a defense")
        if isinstance(classifier, Defense):
            raise InputError("A Defense was given as the classifier: write Defended(defense, classifier).")
        self.defense = defense
        self.classifier = classifier if isinstance(classifier, Guide) else Guide(classifier)
        self.training = defense.training

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(B, K)`."""
        logits: Tensor = self.classifier(self.defense(x))
        return logits

    def requires_grad_(self, requires_grad: bool = True) -> Defended:
        """Set the flag of the defense only, as the classifier shares its weights with the original."""
        self.defense.requires_grad_(requires_grad)
        return self


Knowledge = Callable[[nn.Module], nn.Module]  # from the preprocessor to the one the attacker assumes


@labeled("full")
def full(preprocessor: nn.Module) -> nn.Module:
    """Return the preprocessor: the attacker knows the whole pipeline."""
    return preprocessor


@labeled("oblivious")
def oblivious(preprocessor: nn.Module) -> nn.Module:
    """Return the identity: the attacker knows only the classifier."""
    return nn.Identity()


def pipelines(preprocessor: nn.Module, guides: Sequence[nn.Module]) -> Callable[[Tensor], list[Tensor]]:
    """Return a function of images to the logits of each guide behind one preprocessor."""

    def f(x: Tensor) -> list[Tensor]:
        x_out = preprocessor(x)
        return [guide(x_out) for guide in guides]

    return f
