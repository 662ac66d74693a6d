"""Find the feature layers of a network that does not name them, in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.classifiers.feature_layers import FeatureLayers
from forefend.models.freezing import frozen

MOST_STAGES = 4  # of the ImageNet shapes: what lies before is the stem
Seen = list[tuple[str, tuple[int, ...]]]  # modules with the shape of their output, in the order in which they finish


def find_feature_layers(network: nn.Module, x: Tensor) -> FeatureLayers:
    """Return the ends of a network's stages, its last features, and the last convolution of the third stage.

    A stage ends at the last module whose output has its resolution. A transformer, whose blocks all have one shape, is
    divided into four equal stages.

    Args:
        network: images to logits.
        x: one image, `(1, C, H, W)`.

    Raises:
        InputError: there are no such layers.
    """
    view = frozen(network)
    seen = _outputs(view, x)
    stages = _blocks(seen) or _ends_of_resolutions(_maps(seen))
    if not stages:
        raise InputError(
            "The classifier has no feature layers that forefend can find: set classifier.feature_layers = "
            "forefend.classifiers.FeatureLayers(stages=..., features=..., third=...)."
        )
    return FeatureLayers(tuple(stages), stages[-1], _last_weights(view, [name for name, _ in seen], stages))


def _outputs(network: nn.Module, x: Tensor) -> Seen:
    """Return the modules that ran once and returned one tensor of features for each image."""
    calls: dict[str, list[Any]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls.setdefault(name, []).append(output)

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    once = {name: outputs[0] for name, outputs in calls.items() if len(outputs) == 1}
    return [
        (name, tuple(output.shape[1:]))
        for name, output in once.items()
        if isinstance(output, Tensor) and output.is_floating_point() and len(output) == len(x)
    ]


def _maps(seen: Seen) -> Seen:
    """Return the feature maps before the pooling: `(C, H, W)` with more than one position, no map of logits."""
    maps: Seen = [(name, shape) for name, shape in seen if len(shape) == 3 and shape[1] * shape[2] > 1]
    classes = seen[-1][1][-1] if seen else 0
    while maps and maps[-1][1][0] == classes:
        maps.pop()
    return maps


def _ends_of_resolutions(maps: Seen) -> list[str]:
    names = [name for name, _ in maps]
    resolutions = {name: _resolution(shape) for name, shape in maps}
    inside = {outer: [name for name in names if name.startswith(f"{outer}.")] for outer in names}
    held = {outer: {resolutions[name] for name in (outer, *inside[outer])} for outer in names}
    # The block that halves the image also holds maps of the resolution before it, which ends before the block.
    early = {
        name
        for outer in names
        if len(held[outer]) == 2
        for name in inside[outer]
        if resolutions[name] != resolutions[outer]
    }
    trunks = {outer for outer in names if len(held[outer]) > 2}
    ends = {resolutions[name]: name for name in names if name not in early | trunks}
    return sorted(ends.values(), key=names.index)[-MOST_STAGES:]


def _resolution(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return height and width of a map `(C, H, W)`, or `(H, W, C)` as inside Swin and ConvNeXt, of a square image."""
    channels_last = shape[0] == shape[1] != shape[2]
    return shape[:2] if channels_last else shape[1:]


def _blocks(seen: Seen) -> list[str]:
    """Return four of a transformer's blocks, evenly spaced up to the last: they return tokens, `(B, N, C)`."""
    numbered = [name for name, shape in seen if len(shape) == 2 and name[-1].isdigit()]
    depth = min((name.count(".") for name in numbered), default=0)
    blocks = [name for name in numbered if name.count(".") == depth]
    if len(blocks) < 2:
        return []
    count = min(MOST_STAGES, len(blocks))
    return [blocks[(number + 1) * len(blocks) // count - 1] for number in range(count)]


def _last_weights(network: nn.Module, names: list[str], stages: list[str]) -> str:
    """Return the last convolution of the third stage, else its last linear layer, else its end."""
    third = min(3, len(stages)) - 1
    start = names.index(stages[third - 1]) if third else -1
    inside = names[start + 1 : names.index(stages[third]) + 1]
    modules = dict(network.named_modules())
    for kind in (nn.Conv2d, nn.Linear):
        found = [name for name in inside if isinstance(modules[name], kind)]
        main = [name for name in found if "downsample" not in name and "shortcut" not in name]
        if found:
            return (main or found)[-1]
    return stages[third]
