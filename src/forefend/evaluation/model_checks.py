"""Checks that a network can be evaluated and that no trial measures chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError, check_images, check_labels
from forefend.data import ImageDataset
from forefend.evaluation.access import View
from forefend.evaluation.attack_runner import run_all_steps
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.trial import Suite
from forefend.models.defense import Defense
from forefend.models.fingerprint import state_digest
from forefend.models.freezing import device_of
from forefend.models.output_checks import check_classifier, check_preprocessor
from forefend.runtime.batch_size import AdaptiveBatchSize, out_of_memory
from forefend.runtime.precision import full_float32
from forefend.runtime.rng import torch_seed

# Of the spread of logits: a deterministic network repeats a call to the bit, but a compiler may choose other kernels
# for the same batch later, and a GPU may add in another order.
ROUNDING = 1e-5


def check_model(network: nn.Module, images: ImageDataset, name: str) -> Tensor:
    """Refuse images, or a network for them, that cannot be evaluated.

    Args:
        network: images to logits.
        images: test images.
        name: the network's, for the message.

    Returns:
        One or two of the images, on the network's device.

    Raises:
        InputError: images or labels are wrong, an image is repeated, or the network returns no
            logits for them.
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


def check_defense(defense: Defense, images: ImageDataset) -> None:
    """Refuse images that a defense cannot process; a preprocessor of convolutions takes other sizes than its own.

    Raises:
        InputError: the channels or the size do not fit.
    """
    channels = defense.card.settings.get("channels")
    if channels not in (None, images.shape[0]):
        raise InputError(
            f"The defense was trained for images of {channels} channels, and those of {images.name} have "
            f"{images.shape[0]}: choose a data set with {channels}, or read pictures from a folder with that number."
        )
    x, _, _ = images.batch(torch.arange(1))
    with torch.no_grad():
        check_preprocessor(defense, x.to(device_of(defense)))


def check_suite(network: nn.Module, suite: Suite, x: Tensor, name: str) -> None:
    """Refuse a suite whose verdicts on a network would mean nothing.

    Args:
        network: images to logits.
        suite: the trials.
        x: one or two clean images.
        name: the network's, for the message.

    Raises:
        InputError: the network changes its input in place; its outputs are random, and a trial does
            not average or stops at the first success; or a trial needs a gradient that its view of
            the network does not have.
    """
    shown = x.clone()
    with torch.no_grad():
        network(shown)
    if not torch.equal(shown, x):
        raise InputError(f"{name} changes its input in place: let it work on a copy, as x = x - mean does.")
    if is_random(network, x):
        _check_random(network, suite, x, name)
    probed: list[View] = []  # a view need not be hashable
    for trial in suite:
        view = trial.access.view  # averages and copies have a gradient where it has one, and cost more
        if not trial.gradients() or view in probed:
            continue
        probed.append(view)
        if not has_gradient(view(network), x):
            raise InputError(
                f"{name} gives no gradient, and {trial.name} needs one: use the suite black-box, or a trial with "
                "Access(through_bpda)."
            )


def _check_random(network: nn.Module, suite: Suite, x: Tensor, name: str) -> None:
    for trial in suite:
        if not trial.averages and is_random(trial.access(network), x):
            raise InputError(
                f"{name} has random outputs, and {trial.name} does not average them: use the suite randomized, or eot."
            )
        if trial.run is not run_all_steps:
            raise InputError(
                f"{name} has random outputs, and {trial.name} stops at the first lucky one: use run=run_all_steps."
            )


@contextmanager
def unchanged(models: Sequence[EvaluatedModel]) -> Iterator[None]:
    """Raise RuntimeError at the end if the state of a network has changed within the block."""
    before = [state_digest(model.network) for model in models]
    yield
    for model, state in zip(models, before, strict=True):
        if state != state_digest(model.network):
            raise RuntimeError(f"{model.name} changed during the evaluation: its results are not valid.")


def uniform_outputs(network: nn.Module, batches: Sequence[Tensor], name: str) -> Tensor | None:
    """Return the outputs of several batches, `(N, K)` float64; None if equal calls differ.

    Raises:
        InputError: an output depends on the other images of the batch.
    """
    if not all(repeats(network, x) for x in batches):
        return None
    if depends_on_batch(network, batches[-1]):
        raise InputError(
            f"{name} gives an image other logits beside other images, expected logits of each image alone: give "
            "BatchNorm running statistics, and remove from forward what mixes the images of a batch."
        )
    return torch.cat([seeded_outputs(network, x) for x in batches])


def repeats(network: nn.Module, x: Tensor) -> bool:
    """Whether two calls with equal images and an equal seed of torch give equal outputs, up to rounding."""
    return relative_difference(seeded_outputs(network, x), seeded_outputs(network, x)) <= ROUNDING


def depends_on_batch(network: nn.Module, x: Tensor) -> bool:
    """Whether the logits of an image depend on the others of its batch; random networks do not count.

    The tolerance is 5 % of the spread of logits: dynamic int8 quantization scales activations by
    the batch, and differs by about 1 %.
    """
    x = torch.cat([x[:8], 1 - x[:8]])  # negatives, as the batch statistics of similar images are similar
    together, half = seeded_outputs(network, x), len(x) // 2
    try:
        apart = torch.cat([seeded_outputs(network, part) for part in (x[:half], x[half:-1], x[-1:]) if len(part)])
        differs = relative_difference(apart, together) > 0.05
    except (ValueError, RuntimeError) as error:  # BatchNorm refuses a single value for each channel
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        differs = True
    return differs and not is_random(network, x)


def seeded_outputs(network: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs under an equal seed of torch, `(B, K)` float64."""

    def answer(part: Tensor) -> Tensor:
        return network(part).double().nan_to_num(0, 0, 0).cpu()

    with torch_seed(0), full_float32(), torch.no_grad():
        return torch.cat(list(AdaptiveBatchSize(len(x)).map(x, answer)))


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Return the largest difference of two tensors, divided by the spread of the second."""
    spread = max(float(b.max() - b.min()), 1e-6 * float(b.abs().max()), 1e-30)
    return float((a - b).abs().max()) / spread


def check_classes(suite: Suite, classes: int) -> None:
    """Refuse an attack made for another number of classes than the data has.

    Raises:
        InputError: there is one.
    """
    for trial in suite:
        made_for = getattr(trial.attack, "classes", classes)
        if made_for != classes:
            raise InputError(
                f"{trial.name} is made for {made_for} classes and the data has {classes}: make the suite with "
                f"classes={classes}."
            )
        check_classes(trial.stages, classes)


def check_identities(suite: Suite) -> None:
    """Refuse a trial whose identity in records would not be stable.

    Raises:
        InputError: a part of it is a lambda, or is printed with its address.
    """
    for identity in map(str, suite):
        if "<lambda>" in identity or " at 0x" in identity:
            raise InputError(
                f"The trial {identity} has no stable name: give its loss or attack one, by def or __str__."
            )


def is_random(f: Callable[[Tensor], Tensor], x: Tensor, times: int = 16) -> bool:
    """Whether the outputs for equal images differ; random generators are left unchanged.

    Args:
        f: a network, or an attacker's view of it.
        x: images, `(B, C, H, W)` in [0, 1].
        times: calls after the first; a network that draws from few choices may draw the same twice.
    """
    with torch_seed(0), torch.no_grad():
        first = f(x)
        return any(not torch.equal(f(x), first) for _ in range(times))


def has_gradient(f: Callable[[Tensor], Any], x: Tensor) -> bool:
    """Whether autograd can follow the outputs of `f`, one tensor or several, to the images."""
    return gradient_of(f, x) is not None


def gradient_of(f: Callable[[Tensor], Any], x: Tensor) -> Tensor | None:
    """Return the gradient of the sum of all outputs with regard to the images; None without one."""
    x = x.detach().clone().requires_grad_()
    try:
        with torch_seed(0), torch.enable_grad():
            outputs = f(x)
            total: Tensor = sum(part.sum() for part in (outputs if isinstance(outputs, tuple | list) else [outputs]))
            return torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None
    except RuntimeError as error:  # an operation without a derivative, or `.numpy()` of a tensor that requires one
        if out_of_memory(error):
            raise
        if "in-place" in str(error):
            raise InputError(
                "The network's first layer changes images in place, and attacks need their gradient: give it "
                "inplace=False, or a copy of its input."
            ) from error
        return None


def gives_logits(network: nn.Module, x: Tensor) -> bool:
    """Whether the outputs are not probabilities; logarithms of probabilities serve as logits."""
    with torch.no_grad():
        outputs = network(x).double()
    return not bool(((outputs >= 0).all(1) & ((outputs.sum(1) - 1).abs() < 1e-3)).all())
