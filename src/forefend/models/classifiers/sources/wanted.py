"""What a caller says about the classifier that it wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.pretrained import fill, without_wrapper
from forefend.models.classifiers.sources.preprocessing import Numbers, Preprocessing
from forefend.models.classifiers.state_dict import read_state
from forefend.runtime.rng import initialized


@dataclass(frozen=True)
class Wanted:
    """The images that a classifier is for, and what was given about its normalization.

    Args:
        channels: of the images; None for what the source says.
        size: height and width of the images; None likewise.
        classes: number of logits; None likewise.
        mean: normalization where the source names none.
        std: likewise.
        download: fetch weights that are missing.
        outputs: what a black box returns: `logits`, `probabilities` or `labels`.
    """

    channels: int | None = None
    size: int | None = None
    classes: int | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    download: bool = False
    outputs: str = "logits"

    def preprocessing(self, found: Preprocessing | None = None) -> Preprocessing:
        """Return what was found in a source, with the given normalization where it names none."""
        found = found or Preprocessing(None, None)
        if found.mean is not None and found.std is not None:
            return found
        return replace(found, mean=self.mean, std=self.std)

    def check_channels(self, channels: int, spec: str) -> None:
        """Refuse images of other channels than the classifier's."""
        if self.channels not in (None, channels):
            raise InputError(
                f"{spec} takes images of {channels} channels, and these have {self.channels}: read them with "
                f"channels={channels}, or choose another classifier."
            )

    def check_classes(self, classes: int, spec: str) -> None:
        """Refuse a classifier of other classes than the data's."""
        if self.classes not in (None, classes):
            raise InputError(
                f"{spec} has {classes} classes and {self.classes} are needed: choose the data set of its training, or "
                "other weights."
            )

    def shape(self, spec: str) -> tuple[int, int, int]:
        """The shape of the images, (channels, size, size).

        Raises:
            InputError: it was not given.
        """
        if self.channels is None or self.size is None:
            raise InputError(f"{spec} does not say for which images it is: give channels and size.")
        return self.channels, self.size, self.size

    def known_shape(self) -> tuple[int, int, int] | None:
        """The shape of the images; None if it was not given."""
        return None if self.channels is None or self.size is None else (self.channels, self.size, self.size)


def with_weights(build: Callable[[int], nn.Module], file: str | Path, spec: str, classes: int | None) -> nn.Module:
    """Return a network with the weights of a file.

    Args:
        build: the network by its number of classes.
        file: a state dict, however it is nested.
        spec: the network, for the message.
        classes: expected number of logits; None for that of the weights.

    Raises:
        InputError: the file cannot be read, or holds other weights.
    """
    if "://" in str(file):
        raise InputError(f"{file} is an address, expected a file on disk: download it, and give its path.")
    state = read_state(Path(file))
    network = initialized(lambda: build(classes or _classes(build, state)), 0)
    return filled(network, state, Path(file).name, spec)


def filled(network: nn.Module, state: dict[str, Tensor], file: str, spec: str) -> nn.Module:
    """Return the network with the tensors of a file, without outer prefixes.

    Raises:
        InputError: they are those of another network.
    """
    state = without_wrapper(state, list(network.state_dict()))
    fill(network, state, f"{file} does not hold the weights of {spec}")
    return network


def _classes(build: Callable[[int], nn.Module], state: dict[str, Tensor]) -> int:
    """Return the number of classes of the weights: the length of the last tensor that follows that number.

    The order in a file has no meaning, as safetensors sort by name.
    """
    shapes = {name: tensor.shape for name, tensor in initialized(lambda: build(2), 0).state_dict().items()}
    own = {name: t for name, t in without_wrapper(state, list(shapes)).items() if name in shapes and t.ndim}
    return next((len(own[name]) for name in reversed(shapes) if name in own and own[name].shape != shapes[name]), 2)
