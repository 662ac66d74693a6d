"""Lowered: the networks in training compute in bfloat16 while their weights, outputs and losses stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

import torch
from torch import nn

from forefend.models.freezing import device_of
from forefend.models.guide import Guide
from forefend.recipes.base import Networks
from forefend.runtime.precision import report_fallback, supported_dtype


@contextmanager
def mixed_precision(networks: Networks, precision: str) -> Iterator[Networks]:
    """The networks in training form, computing in `precision`; they are given back as they were.

    Each network enters autocast when it is called and leaves it with its output in float32, so that a recipe's losses
    are float32 without its knowing. bfloat16 has the range of float32, and needs no loss scaling.

    Args:
        networks: the networks; those that are trained stay the very same modules, the guides get views of their own.
        precision: `fp32`, where the cast comes back as it is, or `bf16`, which on a device without such arithmetic
            becomes `fp32`.

    Raises:
        InputError: an unknown precision.
    """
    every = nn.ModuleList([networks.preprocessor, networks.classifier, networks.discriminator, *networks.guides])
    device = device_of(every)
    dtype, _ = supported_dtype(precision, device)
    report_fallback("The weights' step computes", precision, device)
    if dtype is torch.float32:
        yield networks
        return
    networks = replace(networks, guides=[Guide(guide.classifier, guide.name) for guide in networks.guides])
    nets = [
        networks.preprocessor,
        networks.classifier,
        networks.discriminator,
        *(guide.classifier for guide in networks.guides),
    ]
    hooks = []
    for network in nets:
        if next(network.parameters(), None) is not None:
            autocast = _Autocast()
            hooks.append(network.register_forward_pre_hook(autocast.enter))
            hooks.append(network.register_forward_hook(autocast.leave, always_call=True))
    try:
        yield networks
    finally:
        for hook in hooks:
            hook.remove()


@final
class _Autocast:
    """Autocast around every call of one network."""

    def __init__(self) -> None:
        self._open: list[torch.autocast] = []

    def enter(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward hook: the network starts."""
        self._open.append(torch.autocast(inputs[0].device.type, torch.bfloat16))
        self._open[-1].__enter__()

    def leave(self, network: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        """A forward hook: the network is done, or has failed, and then there is no output."""
        self._open.pop().__exit__(None, None, None)
        return None if output is None else output.float()
