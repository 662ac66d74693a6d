"""What a network that flattens its features must know of its images: their one size."""

from __future__ import annotations

from torch import Tensor

from forefend.checks import InputError


def check_images_fit(x: Tensor, channels: int, size: int, noun: str = "classifier") -> None:
    """Refuse images of another size than the one a network's flattened layer was built for.

    Args:
        x: images, `(B, C, H, W)`.
        channels: how many channels the network was built for.
        size: the height and width it was built for, in pixels.
        noun: what to call the network.

    Raises:
        InputError: the images are not `(B, channels, size, size)`.
    """
    # A symbolic trace hands over a proxy, whose shape is not known yet: only real images are judged.
    if isinstance(x, Tensor) and tuple(x.shape[1:]) != (channels, size, size):
        raise InputError(
            f"The images have shape {tuple(x.shape)}, but this {noun} was built for (B, {channels}, {size}, "
            f"{size}): build it with the images' own channels and size, or resize the images in front of it."
        )


def check_side(side: int, size: int, least: int) -> int:
    """The side of a feature map, which is refused where the images are too small to leave one.

    Args:
        side: height and width of the last feature map, in cells.
        size: height and width of the images, in pixels.
        least: the smallest size that leaves a cell.

    Raises:
        InputError: no cell is left.
    """
    if side < 1:
        raise InputError(
            f"Images of {size}x{size} pixels are too small for this classifier, expected at least {least}x{least}: "
            "choose another architecture, such as 'cnn' or 'tinyresnet'."
        )
    return side
