"""Training in bfloat16: networks compute in it, while weights, outputs and losses stay float32."""

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
    """Let the networks in training form compute in `precision`, and restore them afterwards.

    Hooks enter autocast before each call of a network and leave it with a float32 output, so that recipes compute
    float32 losses without further ado. bfloat16 has the range of float32 and needs no loss scaling.

    Args:
        networks: the networks; guides are replaced by views, the others stay the same modules.
        precision: `fp32`, which changes nothing, or `bf16`, which is `fp32` on devices without such arithmetic.

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
    guides = [Guide(guide.classifier, guide.name) for guide in networks.guides]
    networks = replace(networks, guides=guides)
    views = [guide.classifier for guide in guides]
    hooks = []
    for network in (networks.preprocessor, networks.classifier, networks.discriminator, *views):
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
    """Autocast around every call of one network, as forward hooks."""

    def __init__(self) -> None:
        self._open: list[torch.autocast] = []

    def enter(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._open.append(torch.autocast(inputs[0].device.type, torch.bfloat16))
        self._open[-1].__enter__()

    def leave(self, network: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        self._open.pop().__exit__(None, None, None)
        return None if output is None else output.float()  # a call that failed has no output
