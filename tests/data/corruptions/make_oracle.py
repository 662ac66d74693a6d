"""How `oracle.npz` was made: another implementation's answers for one image of 32 × 32 pixels.

    python -m venv oracle && oracle/bin/pip install imagecorruptions-imaug==1.1.5
    oracle/bin/python tests/corruptions/make_oracle.py

That package is a port of Hendrycks' program with ImageNet-C's constants, written in numpy, scipy, scikit-image and
OpenCV; CIFAR-10-C's constants are put in place of its own. Where it differs from Hendrycks' program, zoom (in
zoom_blur and snow) and elastic_transform, Hendrycks' description is followed here with scipy and OpenCV.
Every second row and column is kept.
"""

from __future__ import annotations

import types
from itertools import product
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from imagecorruptions import corruptions as theirs
from PIL import Image
from scipy.ndimage import map_coordinates
from scipy.ndimage import zoom as scizoom
from skimage.filters import gaussian

SEVERITIES = (1, 2, 3, 4, 5)
SETS = ("large", "small")
SMALL = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    "motion_blur": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    "fog": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    "snow": (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    "jpeg_compression": (80, 65, 58, 50, 40),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
}
ZOOMS = {
    "small": [(1, 1.06, 0.01), (1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.01), (1, 1.26, 0.01)],
    "large": [(1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03)],
}
EXACT = ("brightness", "contrast", "defocus_blur", "gaussian_blur", "jpeg_compression", "pixelate", "saturate")
SCRIPTED = ("gaussian_noise", "speckle_noise", "motion_blur", "snow", "spatter")  # given the same random numbers
DRAWN = ("shot_noise", "impulse_noise", "glass_blur", "fog")  # compared in distribution
DRAWS = 200
EDGES = np.linspace(-1, 1, 41)


def picture() -> np.ndarray:
    """Slanted waves of three colors, a gray square and a black corner, `(32, 32, 3)` uint8."""
    row, column = np.mgrid[:32, :32]
    waves = np.stack([np.sin(row / 3 + column / 7), np.cos(column / 2 - row / 5), np.sin(row * column / 60)], 2)
    image = np.uint8(np.round(127.5 + 110 * waves))
    image[18:26, 4:14] = 200
    image[:4, 26:] = 0
    return image


def with_small_constants(name: str) -> types.FunctionType:
    """Their function with CIFAR-10-C's constants: the one tuple of five in its code is replaced."""
    function = getattr(theirs, name)
    constants = function.__code__.co_consts
    (old,) = [c for c in constants if isinstance(c, tuple) and len(c) == 5 and c != SMALL[name]]
    code = function.__code__.replace(co_consts=tuple(SMALL[name] if c is old else c for c in constants))
    return types.FunctionType(code, function.__globals__, name, function.__defaults__)


def function_of(name: str, which: str) -> types.FunctionType:
    return getattr(theirs, name) if which == "large" else with_small_constants(name)


def middle(image: np.ndarray, factor: float) -> np.ndarray:
    """Their clipped_zoom, with Hendrycks' cut to the middle, which they left out: they keep the upper left corner."""
    side = image.shape[0]
    inner = int(np.ceil(side / factor))
    top = (side - inner) // 2
    large = scizoom(image[top : top + inner, top : top + inner], (factor, factor, 1), order=1)
    cut = (large.shape[0] - side) // 2
    return large[cut : cut + side, cut : cut + side]


def zoomed(x: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Zoom blur as Hendrycks defines it."""
    return np.mean([x, *(middle(x, factor) for factor in factors)], axis=0)


def bent(x: np.ndarray, severity: int, which: str, numbers: list[np.ndarray]) -> np.ndarray:
    """Elastic deformation as Hendrycks defines it; theirs has other constants and no affine map."""
    height, sigma, reach = {
        "small": [(0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)],
        "large": [(2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)],
    }[which][severity - 1]
    side = 32 if which == "small" else 32 * 244 / 224
    moves, down, across = numbers
    corners = np.float32([[26, 26], [26, 6], [6, 6]])
    matrix = cv2.getAffineTransform(corners, corners + np.float32(reach * side * (2 * moves - 1)))
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    row, column = np.mgrid[:32, :32].astype(float)
    place = back[:2] @ np.stack([column.ravel(), row.ravel(), np.ones(1024)])
    x = np.stack([map_coordinates(x[..., k], place[::-1], order=1, mode="mirror") for k in range(3)], 1)
    x = x.reshape(32, 32, 3)
    waves = [np.zeros((32, 32))] * 2
    if height:
        waves = [gaussian(2 * u - 1, sigma * side, mode="reflect", truncate=3) * height * side for u in (across, down)]
    place = [(row + waves[1]).ravel(), (column + waves[0]).ravel()]
    return np.stack([map_coordinates(x[..., k], place, order=1, mode="reflect") for k in range(3)], 1).reshape(
        32, 32, 3
    )


def kept(found: np.ndarray) -> np.ndarray:
    return np.uint8(np.round(np.asarray(found, float)))[::2, ::2]


def exact(image: np.ndarray, which: str, severity: int, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What needs no random number, or is given the same ones."""

    def normal(size: tuple[int, ...], loc: float = 0, scale: float = 1) -> np.ndarray:
        return loc + scale * (given["normal"] if len(size) == 3 else given["normal"][..., 0])

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(given["uniform"])

    random = mock.patch.multiple("numpy.random", normal=normal, uniform=uniform)
    with random, mock.patch.object(theirs, "clipped_zoom", middle):
        found = {name: function_of(name, which)(Image.fromarray(image), severity) for name in (*EXACT, *SCRIPTED)}
    found["zoom_blur"] = 255 * zoomed(image / 255, np.arange(*ZOOMS[which][severity - 1]))
    numbers = [given["moves"], given["waves"][1], given["waves"][0]]
    found["elastic_transform"] = 255 * np.clip(bent(image / 255, severity, which, numbers), 0, 1)
    return {name: kept(values) for name, values in found.items()}


def drawn(image: np.ndarray, name: str, which: str, severity: int) -> np.ndarray:
    """The change's mean and deviation, its mean's from draw to draw, that from pixel to pixel, and its histogram."""
    np.random.seed(1)
    own_seed = name in ("glass_blur", "impulse_noise")
    seeds = [{"seed": i} if own_seed else {} for i in range(DRAWS)]
    many = [function_of(name, which)(Image.fromarray(image), severity, **seed) for seed in seeds]
    change = (np.stack(many) - image) / 255
    counts = np.histogram(change, EDGES)[0] / change.size
    return np.float32(
        [change.mean(), change.std(), change.mean((1, 2, 3)).std(), np.diff(change, axis=2).std(), *counts]
    )


def main() -> None:
    image, random = picture(), np.random.RandomState(0)
    given = {
        "normal": random.normal(size=(32, 32, 3)).astype(np.float32),
        "uniform": random.uniform(size=()),
        "moves": random.uniform(size=(3, 2)).astype(np.float32),
        "waves": random.uniform(size=(2, 32, 32)).astype(np.float32),  # columns' first
    }
    # Half precision takes half the room; what is kept is what was used.
    given = {name: np.asarray(values, np.float16).astype(np.float32) for name, values in given.items()}
    found = {}
    for which, severity in product(SETS, SEVERITIES):
        for name, values in exact(image, which, severity, given).items():
            found[f"{name}-{which}-{severity}"] = values
        for name in DRAWN:
            found[f"{name}-{which}-{severity}"] = drawn(image, name, which, severity)
    halves = {name: values.astype(np.float16) for name, values in given.items()}
    np.savez_compressed(Path(__file__).parent / "oracle.npz", picture=image, **halves, **found)


if __name__ == "__main__":
    main()
