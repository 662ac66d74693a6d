"""Frozen views of networks, and contexts that restore modes and gradient flags."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from forefend.checks import InputError

Network = TypeVar("Network", bound=nn.Module)


def frozen(network: Network) -> Network:
    """Return an eval-mode view of `network` whose parameters require no gradient.

    The view has its own modules and shares every parameter and buffer: it costs no memory, follows the original's
    training, and leaves its modes and gradient flags unchanged. Gradients reach the images.

    Args:
        network: any module.

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
    check_module(network, "a network")
    with gradients_enabled():
        originals = list(chain(network.parameters(), network.buffers()))
        views = [tensor.detach().clone() if tensor.is_inference() else tensor.detach() for tensor in originals]
        memo: dict[int, Any] = {
            id(tensor): nn.Parameter(view, requires_grad=False) if isinstance(tensor, nn.Parameter) else view
            for tensor, view in zip(originals, views, strict=True)
        }
        copied = deep_copy(network, memo)
        if any(isinstance(module, torch.jit.ScriptModule) for module in copied.modules()):  # it ignores `memo`
            for mine, view in zip(chain(copied.parameters(), copied.buffers()), views, strict=True):
                mine.data = view
        try:
            copied.eval()
        except NotImplementedError:  # an exported program
            for module in copied.modules():
                module.training = False
        for parameter in copied.parameters():  # requires_grad_ of a ScriptModule raises
            parameter.requires_grad = False
        return copied


def check_module(given: object, what: str) -> None:
    """Refuse what is no torch module, such as a function, a name or a class.

    Raises:
        InputError: it is no module.
    """
    if not isinstance(given, nn.Module):
        shown = f"The class {given.__name__}" if isinstance(given, type) else f"{type(given).__name__} {given!r:.40}"
        raise InputError(
            f"{shown} was given as {what}, expected a torch.nn.Module: wrap a function in a module that calls it, and "
            "look a name up with forefend.resolve_classifier or forefend.load."
        )


def deep_copy(network: Network, memo: dict[int, Any] | None = None) -> Network:
    """Return `copy.deepcopy` of a network, also where it holds what cannot be copied.

    Computed tensors, such as a stored activation or the weight of weight_norm, are copied without their graph. Other
    objects, such as locks, files and summary writers, are shared with the original.

    Args:
        network: any module.
        memo: the copies that exist, by `id` of the original.

    Raises:
        InputError: a module inside it refuses to be copied.
    """
    memo = {} if memo is None else memo
    try:
        return _copied(network, dict(memo))
    except Exception:
        _add_substitutes(network, memo, set())
    try:
        return _copied(network, memo)
    except Exception as error:
        raise InputError(
            f"{type(network).__name__} cannot be copied ({str(error).splitlines()[0]}): remove the attribute that "
            "copy.deepcopy refuses."
        ) from error


def _copied(network: Network, memo: dict[int, Any]) -> Network:
    with torch.no_grad():  # else the parameters of a ScriptModule would be computed tensors
        copied = copy.deepcopy(network, memo)
    for mine, original in zip(copied.parameters(), network.parameters(), strict=True):
        mine.requires_grad = original.requires_grad
    return copied


def _add_substitutes(value: Any, memo: dict[int, Any], visited: set[int]) -> None:
    """Add to `memo` a substitute for each part of `value` that cannot be copied."""
    if id(value) in visited or _is_copyable(value, memo):
        return
    visited.add(id(value))
    if isinstance(value, nn.Module | dict | list | tuple | set):
        for part in _parts(value):
            _add_substitutes(part, memo, visited)
        return
    tensors = {id(tensor): tensor.detach().clone() for tensor in _computed_tensors(value, set())}
    memo.update(tensors if _is_copyable(value, memo | tensors) else {id(value): value})


def _is_copyable(value: Any, memo: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:
        return False
    return True


def _computed_tensors(value: Any, visited: set[int]) -> Iterator[Tensor]:
    """Return the tensors with a graph in an object."""
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, Tensor) and value.grad_fn is not None:
        yield value
    for part in _parts(value):
        yield from _computed_tensors(part, visited)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set):
        return list(value)
    return [] if isinstance(value, type | FunctionType | Tensor) else list(getattr(value, "__dict__", {}).values())


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
def gradients_enabled() -> Iterator[None]:
    """Enable gradients inside a caller's `torch.no_grad` or `torch.inference_mode`; also a decorator."""
    with torch.inference_mode(False), torch.enable_grad():
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
