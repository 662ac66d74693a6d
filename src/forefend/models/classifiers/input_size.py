"""What a network that flattens its features must know of its images: their one size."""

from __future__ import annotations

from torch import Tensor

from forefend.checks import InputError


def check_images_fit(x: Tensor, channels: int, size: int, noun: str = "classifier") -> None:
    """Refuse images of another size than a network was built for.

    Args:
        x: images, `(B, C, H, W)`.
        channels: number of channels that the network was built for.
        size: height and width that it was built for, in pixels.
        noun: kind of the network, for the message.

    Raises:
        InputError: the images are not `(B, channels, size, size)`.
    """
    # A symbolic trace passes a proxy of unknown shape.
    if isinstance(x, Tensor) and tuple(x.shape[1:]) != (channels, size, size):
        raise InputError(
            f"The images have shape {tuple(x.shape)}, but this {noun} was built for (B, {channels}, {size}, "
            f"{size}): build it with the channels and size of the images, or read pictures with size={size}, which "
            "crops them to squares."
        )


def check_side(side: int, size: int, least: int) -> int:
    """Return the side of a feature map in cells.

    Raises:
        InputError: images of `size` pixels leave no cell; `least` is the smallest size that does.
    """
    if side < 1:
        raise InputError(
            f"Images of {size}x{size} pixels are too small for this classifier, expected at least {least}x{least}: "
            "choose another architecture, such as 'cnn' or 'tinyresnet'."
        )
    return side
