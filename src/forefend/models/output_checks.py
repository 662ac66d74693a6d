"""Checks of what a user's network returns for images, before any work is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from traceback import walk_tb
from typing import Any

from torch import Tensor, nn

from forefend.checks import InputError
from forefend.runtime.batch_size import out_of_memory


def check_logits(output: Any, count: int, classes: int) -> None:
    """Refuse an output of a classifier that is not finite logits, `(count, classes)`."""
    if not hasattr(output, "is_floating_point"):
        raise InputError(
            f"The classifier returns a {type(output).__name__}, expected one tensor of logits (B, {classes}): "
            "wrap it so that its forward returns only the logits."
        )
    if tuple(output.shape) != (count, classes):
        hint = ""
        if output.ndim == 2 and output.shape[1] > classes:
            hint = (
                f"; if some have no image, use forefend.data.from_tensors(name, x, y, classes={output.shape[1]}), "
                "or the array `classes` of an .npz file"
            )
        raise InputError(
            f"The classifier returns shape {tuple(output.shape)}, expected ({count}, {classes}): "
            f"it must give one logit for each class of the data set{hint}."
        )
    if not bool(output.isfinite().all()):
        reason = "its weights are damaged, or it divides by zero or overflows"
        if bool(output.exp().sum(1).sub(1).abs().max() < 1e-3):  # also exp(-inf) = 0
            reason = "they are logarithms of probabilities, some 0: average log_softmax, or the logits"
        raise InputError(f"The classifier returns NaN or infinite logits on clean images: {reason}.")
    if bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() < 1e-3).all()):
        raise InputError(
            "The classifier returns probabilities (rows sum to 1), expected logits: "
            "drop its last softmax, which would hide gradients from the attack."
        )


def check_classifier(network: Callable[[Tensor], Any], x: Tensor, classes: int, name: str) -> None:
    """Refuse a classifier that does not map images to logits; call this without gradients."""
    check_logits(output_of(network, x, name), len(x), classes)


def check_preprocessor(network: Callable[[Tensor], Any], x: Tensor) -> None:
    """Refuse a preprocessor that changes the shape of images; call this without gradients."""
    shape = getattr(output_of(network, x, "the preprocessor"), "shape", None)
    if shape != x.shape:
        raise InputError(
            f"The preprocessor returns shape {shape and tuple(shape)} for images {tuple(x.shape)}, expected the same."
        )


def output_of(network: Callable[[Tensor], Any], x: Tensor, name: str) -> Any:
    """Return the output of a user's network for images.

    Raises:
        InputError: the network raises; its error is chained. A lack of memory is raised as it is.
    """
    try:
        return network(x)
    except Exception as error:  # of any type, from the user's code
        if isinstance(error, InputError) or out_of_memory(error):  # the reason is known
            raise
        raise InputError(_reason(network, x, name, error)) from error


def failure_in_network(error: Exception, title: str, images: Sequence[int], kept: bool) -> Exception:
    """Return what to raise for an error in the midst of work: a sentence where a network raised it, else the error.

    Args:
        error: what was raised.
        title: the model and the trial.
        images: dataset index of the images in work.
        kept: whether what was found before is on record.
    """
    inside = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    networks = [each for each in inside if isinstance(each, nn.Module)]
    if not networks or isinstance(error, InputError) or out_of_memory(error):
        return error
    said = ": ".join(filter(None, [type(error).__name__, str(error).strip().partition("\n")[0]]))
    shown = ", ".join(map(str, images[:5])) + (", …" if len(images) > 5 else "")
    advice = (
        "run the same again to go on from what is recorded" if kept else "evaluate with a folder, which keeps verdicts"
    )
    return InputError(
        f"{title} failed in a batch of {len(images)} images ({shown} of the data), as {type(networks[-1]).__name__} "
        f"raised {said}: correct its forward, and {advice}."
    )


def _reason(network: Callable[[Tensor], Any], x: Tensor, name: str, error: Exception) -> str:
    kind, said = type(error).__name__, str(error).strip().partition("\n")[0]
    reason, shape = said or kind, tuple(x.shape[1:])
    # Libraries check the size in their own ways.
    if isinstance(error, NotImplementedError) or not isinstance(error, RuntimeError | AssertionError | ValueError):
        shown = f"{kind}: {said}" if said else kind
        return (
            f"{name} fails on images of shape {shape} ({shown}): correct its forward, which is given one tensor "
            "(B, C, H, W)."
        )
    held = {weight.dtype for weight in getattr(network, "parameters", tuple)()} - {x.dtype}
    if held and "type" in reason:
        kinds = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in held))
        return (
            f"{name} has {kinds} weights, and images are {str(x.dtype).removeprefix('torch.')} ({reason}): convert "
            "it with .float(), or let its forward convert images and logits."
        )
    if "same device" in reason or "expected device" in reason:
        return (
            f"{name} is not on {x.device.type} alone, where the images are ({reason}): move it there as "
            "a whole, with its constants as buffers."
        )
    return (
        f"Images of shape {shape} do not fit {name} ({reason}): it was made for other channels or "
        "another size; read the images at its size, or resize inside the network."
    )


def is_near_chance(accuracy: float, classes: int) -> bool:
    """Whether an accuracy is below twice chance, or midway to 1 for few classes."""
    chance = 1 / classes
    return accuracy < min(2 * chance, (1 + chance) / 2)


def check_clean_accuracy(accuracy: float, classes: int, count: int, name: str) -> None:
    """Refuse a clean accuracy near chance."""
    if is_near_chance(accuracy, classes):
        raise InputError(
            f"{name} gets {accuracy:.1%} of {count} clean images right, near chance ({1 / classes:.1%}): most likely "
            "its normalization (mean, std) or its labels are wrong; allow_weak=True accepts it."
        )
