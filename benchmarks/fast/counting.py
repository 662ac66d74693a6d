"""Count what an attack costs a network: passes with and without a gradient, by hooks, in any network or copy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@dataclass
class Passes:
    """What was counted, for all images together.

    Args:
        gradients: gradients with respect to an image.
        forwards: forward passes of an image, those of its gradients included.
        cpu_seconds: time of this process on a core.
        wall_seconds: time on the clock.
    """

    gradients: int = 0
    forwards: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@contextmanager
def counted(passes: Passes) -> Iterator[None]:
    """Add the passes of images through outermost modules inside the context to `passes`, and the time."""
    depth = 0

    def backward(gradient: Tensor) -> None:
        passes.gradients += len(gradient)

    def enter(module: nn.Module, inputs: Any) -> None:
        nonlocal depth
        depth += 1
        x = inputs[0] if isinstance(inputs, tuple) and inputs else None
        if depth == 1 and isinstance(x, Tensor) and x.ndim == 4:
            passes.forwards += len(x)
            if x.requires_grad and torch.is_grad_enabled():
                x.register_hook(backward)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal depth
        depth -= 1

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield
    finally:
        passes.cpu_seconds += round(time.process_time() - cpu, 1)
        passes.wall_seconds += round(time.perf_counter() - wall, 1)
        for hook in hooks:
            hook.remove()
