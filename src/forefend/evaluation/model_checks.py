"""Suitable: which suites a network can be attacked with that would not be deceived by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError, check_classifier, check_images, check_labels
from forefend.data import ImageDataset
from forefend.evaluation.attack_runner import run_all_steps
from forefend.evaluation.trial import Suite, Trial, View
from forefend.models.fingerprint import fingerprint
from forefend.models.freezing import device_of
from forefend.runtime.batch_size import out_of_memory
from forefend.runtime.rng import torch_seed


def check_model(network: nn.Module, images: ImageDataset, name: str) -> Tensor:
    """Refuse images, or a network for them, that cannot be judged.

    Args:
        network: images to logits.
        images: test images.
        name: the network's, for the message.

    Returns:
        One or two of the images, where the network lives.

    Raises:
        InputError: images or labels are wrong, an image is there twice, or the network returns no logits for them.
    """
    if len(set(images.index.tolist())) < len(images):
        raise InputError("The test images hold the same image twice, which would count twice: give each once.")
    x, _, _ = images.batch(torch.arange(min(2, len(images))))
    check_images(x)
    check_labels(images.labels, len(images.classes), len(images))
    x = x.to(device_of(network))
    with torch.no_grad():
        check_classifier(network, x, len(images.classes), name)
    return x


def check_suite(network: nn.Module, suite: Suite, x: Tensor, name: str) -> None:
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
    asked: list[View] = []  # a view need not be hashable
    for hidden in suite:
        view = _seen_by(hidden.sees)
        if not hidden.gradients() or view in asked:
            continue
        asked.append(view)
        if has_gradient(view(network), x):
            continue
        raise InputError(
            f"{name} gives no gradient, and {hidden.name} needs one: what remains is the suite black-box, or a trial "
            "that sees through_bpda."
        )


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
                "with the suite randomized."
            )
        if trial.run is not run_all_steps:
            raise InputError(
                f"{name} gives different answers to the same image, and {trial.name} stops at the first lucky one: "
                "judge it at the end, with run=to_the_end."
            )


def _answers_at_random(network: nn.Module, x: Tensor) -> bool:
    """Whether it answers otherwise when asked again, and not because it changed: that is another matter."""
    before = fingerprint(network)
    return is_random(network, x) and fingerprint(network) == before


def _suits_random(trial: Trial, network: nn.Module, x: Tensor) -> bool:
    """Whether a trial averages what a randomized network answers, or asks something that is not random."""
    averages = getattr(trial.sees, "averages", False) or getattr(trial.attack, "averages", False)
    return averages or not is_random(trial.sees(network), x)


def _seen_by(view: View) -> View:
    """What a view averages or copies: it has a gradient where that has one, and costs one forward pass and no copy."""
    inner = getattr(view, "view", None)
    return _seen_by(inner) if inner else view


def is_random(f: Callable[[Tensor], Tensor], x: Tensor, times: int = 16) -> bool:
    """Whether the same images are answered otherwise when asked again; the generators are left as they were.

    Args:
        f: a network, or what an attacker sees of it.
        x: images, `(B, C, H, W)` in [0, 1].
        times: how often it is asked again: one that draws from few choices may well draw the same twice.
    """
    with torch_seed(0), torch.no_grad():
        first = f(x)
        return any(not torch.equal(f(x), first) for _ in range(times))


def has_gradient(f: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Whether what `f` answers, one tensor or several, hangs on the images so that autograd can follow.

    The gradient may still be zero.
    """
    x = x.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            seen = f(x)
            total: Tensor = sum(part.sum() for part in (seen if isinstance(seen, tuple | list) else [seen]))
            return total.requires_grad and torch.autograd.grad(total, x, allow_unused=True)[0] is not None
    except RuntimeError as error:  # an operation without a derivative, or `.numpy()` of a tensor that asks for one
        if out_of_memory(error):
            raise
        return False


def gives_logits(network: nn.Module, x: Tensor) -> bool:
    """Whether the answers are not probabilities, which a loss's own softmax would flatten.

    Logarithms of probabilities serve as logits: their softmax is what it was, and so are all losses here.
    """
    with torch.no_grad():
        answers = network(x).double()
    return not bool(((answers >= 0).all(1) & ((answers.sum(1) - 1).abs() < 1e-3)).all())
