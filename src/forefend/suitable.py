"""Suitable: which suites a network can be attacked with that would not be deceived by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .checks import InputError
from .modes import fingerprint
from .running import until_lost
from .trial import Suite, Trial


def check_suits(network: nn.Module, suite: Suite, x: Tensor, name: str) -> None:
    """Refuse a suite that a network would deceive.

    Args:
        network: images to logits.
        suite: what it is to be attacked with.
        x: one or two clean images.
        name: the network's, for the message.

    Raises:
        InputError: it changes its images in place; it answers otherwise when asked again, and a trial does not average,
            or stops at the first lucky answer; or its logits hang on no image that a gradient could be taken of, and a
            trial needs one.
    """
    _check_in_place(network, x, name)
    if _answers_at_random(network, x):
        _check_random(network, suite, x, name)
    hidden = next((trial for trial in suite if trial.gradients() and not has_gradient(trial.sees(network), x)), None)
    if hidden:
        raise InputError(
            f"{name} gives no gradient, and {hidden.name} needs one: what remains is the suite black-box, or a trial "
            "that sees through_bpda."
        )


def has_gradient(f: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Whether what `f` answers can be differentiated with respect to the image."""
    try:
        with torch.enable_grad():
            seen = f(x.detach().clone().requires_grad_())
    except RuntimeError:  # such as "Can't call numpy() on Tensor that requires grad"
        return False
    return any(part.requires_grad for part in (seen if isinstance(seen, tuple | list) else [seen]))


def _check_in_place(network: nn.Module, x: Tensor, name: str) -> None:
    shown = x.clone()
    with torch.no_grad():
        network(shown)
    if not torch.equal(shown, x):
        raise InputError(
            f"{name} changes the images it is shown, in place: let it work on a copy, as x = x - mean does."
        )


def _check_random(network: nn.Module, suite: Suite, x: Tensor, name: str) -> None:
    for trial in suite:
        if not _suits_random(trial, network, x):
            raise InputError(
                f"{name} gives different answers to the same image, and {trial.name} asks once: attack it through eot, "
                "with the suite randomised."
            )
        if trial.run is until_lost:
            raise InputError(
                f"{name} gives different answers to the same image, and {trial.name} stops at the first lucky one: "
                "judge it at the end, with run=to_the_end."
            )


def _answers_at_random(network: nn.Module, x: Tensor) -> bool:
    """Whether it answers otherwise when asked again, and not because it changed: that is another matter."""
    before = fingerprint(network)
    with torch.no_grad():
        return _varies(network, x) and fingerprint(network) == before


def _suits_random(trial: Trial, network: nn.Module, x: Tensor) -> bool:
    """Whether a trial averages what a randomised network answers, or asks something that is not random."""
    if getattr(trial.sees, "averages", False) or getattr(trial.attack, "averages", False):
        return True
    with torch.no_grad():
        return not _varies(trial.sees(network), x)


def _varies(f: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Whether the same images are answered otherwise when asked again: a choice among few may repeat once."""
    first = f(x)
    return not all(torch.equal(first, f(x)) for _ in range(7))
