"""Modes: look at a network without touching it.

`frozen` gives an eval-only twin that shares the original's tensors, `laid_out` one that is quicker to ask; `borrowed`
puts a network into crafting form and gives its modes and gradient flags back exactly; `fingerprint` proves that nothing
moved.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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


def laid_out(network: Network) -> Network:
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
def borrowed(f: Callable[..., Any]) -> Iterator[None]:
    """Put `f` in eval mode with no parameter asking for a gradient, and give everything back exactly afterwards.

    Args:
        f: a network; any other callable is left as it is.
    """
    networks = [f] if isinstance(f, nn.Module) else []
    with returned(*networks):
        for network in networks:
            for module in network.modules():
                module.training = False
            for parameter in network.parameters():
                parameter.requires_grad = False
        yield


@contextmanager
def returned(*networks: nn.Module) -> Iterator[None]:
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


def likeness(network: nn.Module) -> str:
    """The network's fingerprint, with every module's mode and every parameter's gradient flag: equal if untouched."""
    modes = "".join(str(int(module.training)) for module in network.modules())
    flags = "".join(str(int(parameter.requires_grad)) for parameter in network.parameters())
    return f"{fingerprint(network)}|{modes}|{flags}"


def fingerprint(network: nn.Module) -> str:
    """Sixteen hexadecimal digits over the names, shapes, types and bytes of every parameter and buffer.

    Equal exactly when the tensors are: it tells a seen classifier from an unseen one, and that a guide was not touched.
    """
    digest = hashlib.sha256()
    # Not the state_dict: it leaves out buffers that are not saved, such as a mean and std, and they decide too.
    tensors = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()[:16]


def form(network: nn.Module) -> str:
    """Eight hexadecimal digits over the modules and their plain attributes: the same weights may judge otherwise."""
    said = [f"{type(m).__module__}.{type(m).__qualname__}{sorted(_plain(m).items())}" for m in network.modules()]
    return hashlib.sha256(f"{network!r}{said!r}".encode()).hexdigest()[:8]


def _plain(module: nn.Module) -> dict[str, str]:
    """What a module keeps beside its tensors and children, as far as it can be written down without an address."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    return {
        name: text for name, text in ((name, _spelled(value)) for name, value in own.items()) if " at 0x" not in text
    }


def _spelled(value: Any) -> str:
    if isinstance(value, Tensor):
        return hashlib.sha256(_raw(value)).hexdigest()[:8]
    if isinstance(value, set | frozenset):  # in an order that hangs on no process
        return repr(sorted(map(repr, value)))
    return getattr(value, "__qualname__", None) or repr(value)


def device_of(network: nn.Module) -> torch.device:
    """Where a network lives; one without parameters or buffers works on the CPU."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


def _raw(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
