from __future__ import annotations

import hashlib
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def state_digest(network: nn.Module) -> str:
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


def architecture_digest(network: nn.Module) -> str:
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


def _raw(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
