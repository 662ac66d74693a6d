"""Optimality of a suite: how near its curve of robust accuracy against radius comes to the best of all suites.

Source: AttackBench (Cinà et al., AAAI 2025, 2404.19460).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Curve = Mapping[
    float, frozenset[int]
]  # the images that are misclassified at each radius, those at radius 0 by themselves


def cumulative(curves: Sequence[Curve]) -> dict[float, frozenset[int]]:
    """Return the best of several curves: an image is broken from the smallest radius on at which one broke it."""
    broken: frozenset[int] = frozenset()
    found = {}
    for radius in sorted(set().union(*curves)):
        broken = broken.union(*(curve.get(radius, ()) for curve in curves))
        found[radius] = broken
    return found


def area(curve: Curve, images: int) -> float:
    """Return the area under the robust accuracy, by trapezoids between the radii."""
    radii = sorted(curve)
    robust = [1 - len(curve[radius]) / images for radius in radii]
    pairs = zip(radii, radii[1:], robust, robust[1:], strict=False)
    return sum((high - low) * (left + right) / 2 for low, high, left, right in pairs)


def optimality(curve: Curve, best: Curve, images: int) -> float:
    """Return the share of the best curve's fall that a curve has: 1 for the best, 0 where no attack succeeded.

    Args:
        curve: of a suite, with radius 0.
        best: of all suites, with the same radii.
        images: number of images.
    """
    clean = area(dict.fromkeys(curve, curve[0.0]), images)
    return (clean - area(cumulative([curve]), images)) / (clean - area(best, images))
