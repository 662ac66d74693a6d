"""Digests of networks: of their tensors, of their state and of their architecture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def state_digest(network: nn.Module) -> str:
    """Return the fingerprint with every module's mode and every parameter's gradient flag."""
    modes = "".join(str(int(module.training)) for module in network.modules())
    flags = "".join(str(int(parameter.requires_grad)) for parameter in network.parameters())
    return f"{fingerprint(network)}|{modes}|{flags}"


def fingerprint(network: nn.Module) -> str:
    """Return sixteen hexadecimal digits over the names, shapes, types and bytes of every parameter and buffer.

    Args:
        network: any module.

    Returns:
        Text that is equal exactly when the tensors are, in every process.

    Example:
        >>> import torch
        >>> from forefend.models.fingerprint import fingerprint
        >>> network = torch.nn.Linear(2, 1)
        >>> before = fingerprint(network)
        >>> torch.nn.init.zeros_(network.bias).shape
        torch.Size([1])
        >>> fingerprint(network) == before
        False
    """
    # The state_dict would leave out buffers that are not saved, such as a mean and std.
    return fingerprint_of(
        chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    )


def fingerprint_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the fingerprint of the network that has these tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()[:16]


def architecture_digest(network: nn.Module) -> str:
    """Return eight hexadecimal digits over the modules and their plain attributes.

    Two networks with equal tensors can differ in it, such as in a padding. Classes of this package count by their
    name only, so that moving a module keeps the digest.
    """
    modules = [f"{_class_name(type(m))}{sorted(_plain_attributes(m).items())}" for m in network.modules()]
    return hashlib.sha256(f"{network!r}{modules!r}".encode()).hexdigest()[:8]


def _class_name(kind: type) -> str:
    ours = kind.__module__.partition(".")[0] == "forefend"
    return kind.__qualname__ if ours else f"{kind.__module__}.{kind.__qualname__}"


def _plain_attributes(module: nn.Module) -> dict[str, str]:
    """Return the attributes beside tensors and children whose text holds no memory address."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    texts = {name: _text_of(value) for name, value in own.items()}
    return {name: text for name, text in texts.items() if " at 0x" not in text}


def _text_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return hashlib.sha256(raw_bytes(value)).hexdigest()[:8]
    if isinstance(value, set | frozenset):  # in an order that is the same in every process
        return repr(sorted(map(repr, value)))
    return getattr(value, "__qualname__", None) or repr(value)


def raw_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor's values."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
