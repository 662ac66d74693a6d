"""Frozen views of networks, and contexts that restore modes and gradient flags."""

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
    """Return an eval-mode view of `network` whose parameters require no gradient.

    The view has its own modules and shares every parameter and buffer: it costs no memory, follows the original's
    training, and leaves its modes and gradient flags unchanged. Gradients reach the images.

    Args:
        network: any module that `copy.deepcopy` can copy.

    Returns:
        A module of the same type.

    Example:
        >>> import torch
        >>> from forefend.models.freezing import frozen
        >>> network = torch.nn.Linear(2, 1)
        >>> view = frozen(network)
        >>> view.weight.requires_grad, network.weight.requires_grad
        (False, True)
        >>> view.weight.data_ptr() == network.weight.data_ptr()
        True
    """
    shared: dict[int, Any] = {}
    for tensor in chain(network.parameters(), network.buffers()):
        detached = tensor.detach()
        shared[id(tensor)] = (
            nn.Parameter(detached, requires_grad=False) if isinstance(tensor, nn.Parameter) else detached
        )
    return copy.deepcopy(network, shared).eval().requires_grad_(False)


def channels_last_copy(network: Network) -> Network:
    """Return a frozen channels-last copy on one device; it does not follow the original's training.

    Args:
        network: as for `frozen`; where parts are on the CPU and on one other device, the copy is on the latter.
    """
    copied = frozen(network)
    places = {tensor.device for tensor in chain(copied.parameters(), copied.buffers())}
    others = [place for place in places if place.type != "cpu"]
    if len(places) > len(others) == 1:
        copied.to(others[0])
    channels_last(copied)
    return copied


def channels_last(network: nn.Module) -> None:
    """Convert four-dimensional tensors to channels-last in place, which makes convolutions faster."""
    for tensor in chain(network.parameters(), network.buffers()):
        if tensor.ndim == 4:  # nn.Module.to raises for five dimensions
            tensor.data = tensor.data.to(memory_format=torch.channels_last)


@contextmanager
def eval_and_no_grad(f: Callable[..., Any]) -> Iterator[None]:
    """Put `f` in eval mode without parameter gradients, and restore everything afterwards.

    Args:
        f: a network; any other callable is left unchanged.
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
    """Restore every module's mode and every parameter's gradient flag afterwards."""
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
    """Return the device of a network; the CPU if it has no tensors."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))
