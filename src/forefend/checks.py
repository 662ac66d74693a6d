"""Checks of images, labels, logits and numbers that users pass.

Every error message names the value, what was expected and what to do. Importing this module does
not import torch, so that the command line starts fast.
"""

from __future__ import annotations

import difflib
import importlib
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")

# Test and description of the valid values of each setting. NaN fails every test.
_COUNT: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "at least 1")
_AT_LEAST_0: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < math.inf, "at least 0")
_ABOVE_0: tuple[Callable[[Any], bool], str] = (lambda value: 0 < value < math.inf, "a finite number above 0")
_SHARE: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < 1, "at least 0 and below 1")
_SEED: tuple[Callable[[Any], bool], str] = (lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")
RANGES = {
    **dict.fromkeys(("batch_size", "epochs", "generator_steps", "images", "processes", "restarts", "size"), _COUNT),
    **dict.fromkeys(
        ("bisections", "patience", "pictures", "steps", "weight_decay", "decay", "plateau_factor"), _AT_LEAST_0
    ),
    **dict.fromkeys(("alpha", "beta", "gamma", "sigma", "clean_weight", "adversarial_weight"), _AT_LEAST_0),
    **dict.fromkeys(("ce_weight", "mse_weight", "pixel_weight", "feature_weight", "discriminator_weight"), _AT_LEAST_0),
    "logit_weight": _AT_LEAST_0,
    **dict.fromkeys(("lr", "relative_step", "least_radius", "step_size"), _ABOVE_0),
    **dict.fromkeys(("beta1", "hold_out", "milestones", "momentum", "warm_up"), _SHARE),
    "seed": _SEED,
}


class InputError(ValueError):
    """An input that cannot be used; the message says why, and what to do."""


def choose(name: str, table: Mapping[str, Value], noun: str) -> Value:
    """Return the entry of `table` called `name`; the error for an unknown name suggests one."""
    if name in table:
        return table[name]
    raise unknown_name(name, table, noun)


def unknown_name(name: str, known: Iterable[str], noun: str) -> InputError:
    """Return the error for an unknown name; it suggests the nearest of `known`."""
    known = sorted(known)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    shown = known if len(known) <= 100 else [*known[:10], f"… ({len(known)} in all)"]  # timm has over a thousand
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(shown)}."
    return InputError(f"There is no {noun} called {name!r}: {hint}")


def import_extra(module: str, purpose: str, extra: str) -> Any:
    """Import a module of an optional dependency; `purpose` begins the error message."""
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ImportError as error:
        name = {"PIL": "Pillow", "scipy": "SciPy", "sklearn": "scikit-learn"}.get(package, package)
        if isinstance(error, ModuleNotFoundError):
            raise InputError(f"{purpose} needs {name}: pip install 'forefend[{extra}]'.") from None
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{purpose} needs {name}, which is installed but cannot be loaded ({reason}): free memory, or reinstall it."
        ) from None


def check_numbers(values: Mapping[str, Any]) -> None:
    """Refuse a number out of the range of its setting; other settings must be finite or None."""
    for name, given in values.items():
        fits, wanted = RANGES.get(name, (lambda value: math.isfinite(value), "a finite number"))
        for value in given if isinstance(given, list | tuple) else (given,):
            if isinstance(value, int | float) and not fits(value):
                shown = f"{value:g}" if isinstance(value, float) else value
                raise InputError(f"The number given for {name} is {shown}, expected {wanted}.")


def check_type(given: object, kind: type, what: str) -> None:
    """Refuse an argument, called `what`, that is not an instance of `kind`."""
    if not isinstance(given, kind):
        shown = f"The class {given.__name__} itself" if isinstance(given, type) else f"A {type(given).__name__}"
        raise InputError(f"{shown} was given as {what}, expected a forefend.{kind.__name__}.")


def as_integer(given: Any, name: str) -> int:
    """Return a whole number, also of numpy or torch, in the range of the setting."""
    try:
        number = operator.index(given)
    except TypeError:
        raise InputError(f"The {name} is {given!r}, expected a whole number.") from None
    check_numbers({name: number})
    return number


def check_images(x: Tensor, channels: int | None = None) -> None:
    """Refuse images that are not `(B, C, H, W)` floats in [0, 1]; `channels` None is any number that is not last."""
    _check_form(x)
    if x.shape[0] == 0:
        raise InputError("The batch holds no images, expected at least one.")
    if is_channels_last(x.shape) if channels is None else x.shape[1] != channels:
        raise InputError(
            f"Images have {x.shape[1]} channels, expected {channels or x.shape[3]}: "
            f"the batch must be (B, C, H, W), and is {tuple(x.shape)}."
        )
    check_range(x)


def is_channels_last(shape: Sequence[int]) -> bool:
    """Return whether four lengths are those of images `(B, H, W, C)`: one or three last, or two equal ones before."""
    return shape[1] not in (1, 3) and (shape[3] in (1, 3) or shape[1] == shape[2] != shape[3])


def _check_form(x: Tensor) -> None:
    if not hasattr(x, "is_floating_point"):
        raise InputError(f"Images must be a torch tensor of floats in [0, 1], not {type(x).__name__}.")
    if not x.is_floating_point():
        raise InputError(
            f"Images are {str(x.dtype).removeprefix('torch.')}, expected floats in [0, 1]: "
            "for 8-bit pixels write x.float() / 255."
        )
    if x.ndim != 4:
        raise InputError(f"Images have shape {tuple(x.shape)}, expected (B, C, H, W): one image is x[None].")


def check_range(x: Tensor) -> None:
    """Refuse images with pixels outside [0, 1], or NaN."""
    low, high = (float(bound) for bound in x.detach().aminmax())
    if math.isnan(low) or math.isinf(low) or math.isinf(high):
        raise InputError("Images hold NaN or infinite pixels, expected numbers in [0, 1]: correct the data.")
    if low >= 0 and high <= 1:
        return
    if high > 3 and low >= 0:
        advice = "they look like 8-bit pixels: divide by 255"
    elif low < -0.2:
        advice = "they look normalized: undo it, and give the mean and std to the wrapped classifier instead"
    else:
        advice = "clamp them, as x.clamp(0, 1)"
    digits = 3 if low < -0.01 or high > 1.01 else 9  # those that show what is outside
    raise InputError(f"Pixels range over [{low:.{digits}g}, {high:.{digits}g}], expected [0, 1]; {advice}.")


def as_labels(y: Any, count: int | None = None) -> Tensor:
    """Return labels as int64, `(B,)`; refuse those that are not one class number for each of `count` images."""
    if not hasattr(y, "is_floating_point"):
        raise InputError(f"Labels are a {type(y).__name__}, expected a torch tensor of class numbers of shape (B,).")
    labels: Tensor = y
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        advice = ": for one-hot labels write y.argmax(1)" if labels.ndim == 2 else ""
        raise InputError(
            f"Labels are {str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}, "
            f"expected int64 class numbers of shape (B,){advice}."
        )
    if count is not None and len(labels) != count:
        raise InputError(f"There are {len(labels)} labels for {count} images: each image needs exactly one.")
    return labels.long()


def check_labels(y: Tensor, classes: int, count: int | None = None) -> None:
    """Refuse labels, `(B,)`, that are not `count` integers in `0 … classes − 1`."""
    y = as_labels(y, count)
    if len(y) and not (int(y.min()) >= 0 and int(y.max()) < classes):
        raise InputError(
            f"Labels range over {int(y.min())} … {int(y.max())}, expected 0 … {classes - 1} for {classes} classes: "
            "check that labels start at 0 and that the classifier belongs to this data set."
        )


def check_finite(values: Tensor, what: str, advice: str, index: Tensor | None = None, attack: object = None) -> None:
    """Refuse NaN and infinite values of a batch, and name the first image that has one.

    Args:
        values: `(B, …)`.
        what: the subject of the message, such as "The logits".
        advice: what to do, the end of the message.
        index: dataset index of each image, `(B,)`; by default the place in the batch.
        attack: the attack that found the values; None for none.

    Raises:
        InputError: a value is NaN or infinite.
    """
    values = values.detach()
    # A sum is one fast pass, and not finite if one of its terms is not; it may also overflow.
    if math.isfinite(float(values.sum())) or bool(values.isfinite().all()):
        return
    bad = (~values.reshape(max(values.shape[:1], default=1), -1).isfinite().all(1)).nonzero().flatten().tolist()
    what += f" in {attack}" if attack else ""
    image = f"image {bad[0]} of the batch" if index is None else f"image {int(index[bad[0]])} of the data"
    more = f" and of {len(bad) - 1} more of {len(values)}" if len(bad) > 1 else ""
    raise InputError(f"{what} of {image}{more} are NaN or infinite, expected finite numbers: {advice}.")


def predictions(logits: Tensor, index: Tensor | None = None) -> Tensor:
    """Return the class of the largest logit of each image, `(B,)` int64.

    Args:
        logits: `(B, K)`.
        index: dataset index of each image, `(B,)`, for the message; by default the place in the batch.

    Raises:
        InputError: a logit is NaN or infinite; argmax would return a class without evidence.

    Example:
        >>> import torch
        >>> from forefend.checks import predictions
        >>> predictions(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
        tensor([1, 0])
    """
    check_finite(logits, "The logits", "find where the classifier divides by zero or overflows", index)
    return logits.argmax(1)
