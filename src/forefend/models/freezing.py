"""Modes: look at a network without touching it.

`frozen` gives an eval-only twin that shares the original's tensors, `laid_out` one that is quicker to ask; `borrowed`
puts a network into crafting form and gives its modes and gradient flags back exactly; `fingerprint` proves that nothing
moved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def frozen(network: Network) -> Network:
    """An eval-mode twin of `network` whose parameters ask for no gradient.

    The twin has modules of its own but shares every parameter and buffer, so it costs no memory, follows the original
    as that trains, and leaves the original's modes and gradient flags alone. Gradients still reach the image.

    Args:
        network: any module that `copy.deepcopy` can copy.
    """
    shared: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        still = tensor.detach()
        shared[id(tensor)] = nn.Parameter(still, requires_grad=False) if isinstance(tensor, nn.Parameter) else still
    # Hooks may close over anything; a twin that shared them would call back into the original's owner.
    return copy.deepcopy(network, shared).eval().requires_grad_(False)


def channels_last_copy(network: Network) -> Network:
    """A frozen twin to be asked many times: on one device, channels-last. It does not follow the original's training.

    Args:
        network: as for `frozen`; where some of it is on the CPU and the rest on one other device, the twin is there.
    """
    twin = frozen(network)
    places = {tensor.device for tensor in chain(twin.parameters(), twin.buffers())}
    others = [place for place in places if place.type != "cpu"]
    if len(places) > len(others) == 1:
        twin.to(others[0])
    channels_last(twin)
    return twin


def channels_last(network: nn.Module) -> None:
    """Lay out in place what two-dimensional convolutions multiply with: the same numbers, convolved faster."""
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.ndim == 4:  # nn.Module.to would lay out five dimensions too, and has no such layout for them
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


@contextmanager
def eval_and_no_grad(f: Callable[..., Any]) -> Iterator[None]:
    """Put `f` in eval mode with no parameter asking for a gradient, and give everything back exactly afterwards.

    Args:
        f: a network; any other callable is left as it is.
    """
    networks = [f] if isinstance(f, nn.Module) else []
    with restore_modes(*networks):
        for network in networks:
            for module in network.modules():
                module.training = False
            for parameter in network.parameters():
                parameter.requires_grad = False
        yield


@contextmanager
def restore_modes(*networks: nn.Module) -> Iterator[None]:
    """Give every module its mode and every parameter its gradient flag back afterwards, whatever happened to them.

    Args:
        networks: whose modes and flags are kept.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad = flag


def device_of(network: nn.Module) -> torch.device:
    """Where a network lives; one without parameters or buffers works on the CPU."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))
