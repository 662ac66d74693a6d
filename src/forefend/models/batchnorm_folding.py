"""Fold BatchNorms in eval mode into the weights of the layer before them.

A BatchNorm in eval mode is one multiply-add for each channel. Where it alone reads a layer's output, it becomes part of
the layer; elsewhere `Affine` replaces it, which unlike BatchNorm stores no features for the gradient.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from forefend.models.freezing import deep_copy, frozen

Pairs = set[tuple[str, str]]  # (layer, norm), by their dotted names
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


# Functions of a tensor that do not read its values.
_METADATA = {"__get__", "__len__", "dim", "is_contiguous", "is_floating_point", "ndimension", "numel", "size", "stride"}


def norms(network: nn.Module) -> dict[str, nn.Module]:
    """Return the BatchNorms with running statistics inside a network by name, without subclassed or hooked ones."""
    modules = network.named_modules()
    return {name: norm for name, norm in modules if name and _plain(norm, _NORMS) and norm.running_mean is not None}


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return convolutions and linear layers by name, without subclassed, parametrized or hooked ones."""
    return {name: layer for name, layer in network.named_modules() if name and _plain(layer, _LAYERS)}


def foldable(network: nn.Module, x: Tensor) -> dict[str, str | None]:
    """Return for each of the `norms` the layer to fold it into, or None for an `Affine`.

    A BatchNorm is folded into the layer whose output it alone reads. Two analyses must agree: one forward pass, which
    works for every network but follows one path only, and a symbolic trace, which holds for every image. Where the
    trace fails, the forward pass decides, unless it read values of tensors, such as for an `if`.

    Args:
        network: in eval mode; it also runs on symbols, so pass a private copy.
        x: images, `(B, C, H, W)`.
    """
    pairs, one_path = _observed(network, x)
    traced = _traced(network) if pairs else set()
    if traced is None:
        traced = pairs if one_path else set()
    return dict.fromkeys(norms(network)) | {norm: layer for layer, norm in pairs & traced}


def folded(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the layer that equals `layer` followed by `norm`.

    Args:
        layer: a Conv2d, ConvTranspose2d or Linear.
        norm: a BatchNorm with running statistics, one for each output channel of the layer.
    """
    scale, shift = affine(norm)
    weight: Any = layer.weight
    bias: Any = layer.bias
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, H, W): inputs are grouped
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * scale.view(layer.groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return weight, shift if bias is None else torch.addcmul(shift, bias, scale)


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a BatchNorm in eval mode, `(C,)` each."""
    mean: Any = norm.running_mean
    variance: Any = norm.running_var
    weight: Any = norm.weight
    bias: Any = norm.bias
    scale = torch.rsqrt(variance + norm.eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else torch.addcmul(bias, mean, scale, value=-1)


def with_distinct_norms(network: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose BatchNorms all differ.

    In a fresh network each is close to the identity, so a wrong fold would not be noticed.
    """
    copied = deep_copy(frozen(network))
    for place, norm in enumerate(norms(copied).values()):
        mean: Any = norm.running_mean
        variance: Any = norm.running_var
        spread = torch.linspace(0.7, 1.4, len(mean), device=mean.device, dtype=mean.dtype).roll(place)
        mean += (spread - 1) * variance.sqrt()
        variance *= spread
    return copied


@final
class Affine(nn.Module):
    """`x * scale + shift` for each channel, as a BatchNorm in eval mode.

    Args:
        scale: `(C,)`.
        shift: `(C,)`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor like `x`, whose channels are the second axis."""
        shape = (-1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.shift.to(x.dtype).view(shape), x, self.scale.to(x.dtype).view(shape))


def _plain(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Return whether a module is of one of these types, without hooks, as hooks and subclasses can change it."""
    return type(module) in kinds and not any(getattr(module, hooks) for hooks in _HOOKS)


def _traced(network: nn.Module) -> Pairs | None:
    """Return the pairs of a symbolic trace, or None if it fails."""
    try:
        graph = torch.fx.Tracer().trace(network)
    except Exception:  # networks can raise anything for symbols
        return None
    pairs = set()
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(source, torch.fx.Node) and source.op == "call_module" and len(source.users) == 1:
            pairs.add((str(source.target), str(node.target)))
    return pairs


def _observed(network: nn.Module, x: Tensor) -> tuple[Pairs, bool]:
    """Return the pairs of one forward pass, and whether it read no values of tensors."""
    recorder, hooks = _ReadRecorder(), []
    makers, readers = layers(network), norms(network)
    for name, module in (makers | readers).items():
        recorder.own(name, module)
        hooks.append(module.register_forward_pre_hook(partial(recorder.begin, name)))
        hooks.append(module.register_forward_hook(partial(recorder.end, name)))
    try:
        with torch.no_grad(), recorder:
            returned = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    recorder.read(returned)
    pairs = {(layer, norm) for layer, norm in recorder.pairs() if layer in makers and norm in readers}
    return pairs, not recorder.peeked


@final
class _ReadRecorder(TorchFunctionMode):
    """Records which module reads the parameters and outputs of which other module."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ""  # name of the running module
        self.peeked = False  # whether a value of a tensor was read
        self.calls: Counter[str] = Counter()
        self.owners: dict[int, str] = {}
        self.exposed: set[str] = set()  # modules whose parameters other modules read
        self.outputs: dict[int, tuple[str, Tensor]] = {}  # module and output; kept, so that ids stay unique
        self.readers: dict[int, set[str]] = {}

    def own(self, name: str, module: nn.Module) -> None:
        """Register the owner of parameters and buffers; shared ones count as read elsewhere."""
        for tensor in (*module.parameters(), *module.buffers()):
            self.exposed |= {name, self.owners[id(tensor)]} if id(tensor) in self.owners else set()
            self.owners[id(tensor)] = name

    def begin(self, name: str, module: nn.Module, inputs: Any) -> None:
        """Forward pre-hook."""
        self.inside = name
        self.calls[name] += 1

    def end(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Forward hook."""
        self.inside = ""
        weight: Any = module.weight
        if weight is not None and output.ndim == weight.ndim:  # channels are the second axis
            self.outputs[id(output)] = name, output
            self.readers[id(output)] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) or getattr(func, "__name__", "") not in _METADATA:
            self.read((args, kwargs))
            parts = result if isinstance(result, tuple | list) else [result]
            self.peeked |= not all(part is None or isinstance(part, Tensor) for part in parts)
        return result

    def read(self, value: Any) -> None:
        """Record that the running module reads the tensors in this value."""
        if isinstance(value, Tensor):
            self.exposed |= {self.owners.get(id(value), self.inside)} - {self.inside}
            if id(value) in self.outputs:
                self.readers[id(value)].add(self.inside)
        elif isinstance(value, dict):
            self.read(tuple(value.values()))
        elif isinstance(value, tuple | list):
            for part in value:
                self.read(part)

    def pairs(self) -> Pairs:
        """Return layer and only reader of each output, both called once and with unshared parameters."""
        eligible = {name for name, calls in self.calls.items() if calls == 1} - self.exposed
        chains = ((maker, *self.readers[key]) for key, (maker, _) in self.outputs.items())
        return {(names[0], names[1]) for names in chains if len(names) == 2 and eligible.issuperset(names)}
