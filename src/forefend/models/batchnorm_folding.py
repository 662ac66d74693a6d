"""Folding: a BatchNorm that only rescales what the layer before it puts out becomes part of that layer's weights.

In eval mode a BatchNorm is one multiply-add for each channel. Where it alone reads a layer's output, the layer does it
at no cost; elsewhere `Affine` does, which unlike BatchNorm keeps no features for the gradient.
"""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from forefend.models.freezing import frozen

Pairs = set[tuple[str, str]]  # (layer, norm), by their dotted names
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


# What may be asked of a tensor without reading its values.
_METADATA = {"__get__", "__len__", "dim", "is_contiguous", "is_floating_point", "ndimension", "numel", "size", "stride"}


def norms(network: nn.Module) -> dict[str, nn.Module]:
    """The BatchNorms inside a network that in eval mode are a multiply-add of fixed numbers, by name.

    Left out are those that even then use the batch's own statistics, and those that were subclassed or hooked.
    """
    modules = network.named_modules()
    return {name: norm for name, norm in modules if name and _plain(norm, _NORMS) and norm.running_mean is not None}


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """The convolutions and linear layers inside a network, by name; not those subclassed, parametrised or hooked."""
    return {name: layer for name, layer in network.named_modules() if name and _plain(layer, _LAYERS)}


def foldable(network: nn.Module, x: Tensor) -> dict[str, str | None]:
    """What each of the `norms` can become: part of the layer of this name, or an `Affine` where it is None.

    A BatchNorm goes into the layer whose output it alone reads, and two witnesses must agree on that. One forward pass
    is watched, which works for every network but shows only the path that these images take. A symbolic trace holds
    for every image, but some networks cannot be traced; of these the first is believed alone, unless it saw values
    leave the tensors, such as for an `if`: other images might then take another path.

    Args:
        network: in eval mode; it runs on symbols too, so hand over a copy that nobody else holds.
        x: images that it takes, `(B, C, H, W)`.
    """
    pairs, one_path = _observed(network, x)
    traced = _traced(network) if pairs else set()
    if traced is None:
        traced = pairs if one_path else set()
    return dict.fromkeys(norms(network)) | {norm: layer for layer, norm in pairs & traced}


def folded(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that does what `layer` and then `norm` do.

    Args:
        layer: a Conv2d, ConvTranspose2d or Linear.
        norm: a BatchNorm with running statistics, one for each channel that the layer puts out.
    """
    scale, shift = affine(norm)
    weight: Any = layer.weight
    bias: Any = layer.bias
    if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, H, W): the inputs of each group lie together
        grouped = weight.unflatten(0, (layer.groups, -1))
        weight = (grouped * scale.view(layer.groups, 1, -1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
    return weight, shift if bias is None else torch.addcmul(shift, bias, scale)


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift, `(C,)` each, of a BatchNorm in eval mode."""
    mean: Any = norm.running_mean
    variance: Any = norm.running_var
    weight: Any = norm.weight
    bias: Any = norm.bias
    scale = torch.rsqrt(variance + norm.eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else torch.addcmul(bias, mean, scale, value=-1)


def jittered(network: nn.Module) -> nn.Module:
    """A copy in eval mode whose BatchNorms all differ, as those of a fresh network do not.

    There each is next to the identity, and a wrong fold would change nothing yet.
    """
    twin = copy.deepcopy(frozen(network))
    for place, norm in enumerate(norms(twin).values()):
        mean: Any = norm.running_mean
        variance: Any = norm.running_var
        spread = torch.linspace(0.7, 1.4, len(mean), device=mean.device, dtype=mean.dtype).roll(place)
        mean += (spread - 1) * variance.sqrt()
        variance *= spread
    return twin


@final
class Affine(nn.Module):
    """`x * scale + shift` for each channel: what a BatchNorm does in eval mode.

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
        """Of the shape and type of `x`, whose channels are the second axis."""
        shape = (-1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.shift.to(x.dtype).view(shape), x, self.scale.to(x.dtype).view(shape))


def _plain(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is exactly what its type says: a subclass, a parametrised or a hooked one may do anything."""
    return type(module) in kinds and not any(getattr(module, hooks) for hooks in _HOOKS)


def _traced(network: nn.Module) -> Pairs | None:
    """The pairs that a symbolic trace finds; None where it fails."""
    try:
        graph = torch.fx.Tracer().trace(network)
    except Exception:  # whatever a network may do with something that is no tensor
        return None
    pairs = set()
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(source, torch.fx.Node) and source.op == "call_module" and len(source.users) == 1:
            pairs.add((str(source.target), str(node.target)))
    return pairs


def _observed(network: nn.Module, x: Tensor) -> tuple[Pairs, bool]:
    """The pairs that one forward pass shows, and whether no value left the tensors on the way."""
    watch, hooks = _Watch(), []
    makers, readers = layers(network), norms(network)
    for name, module in (makers | readers).items():
        watch.own(name, module)
        hooks.append(module.register_forward_pre_hook(partial(watch.begin, name)))
        hooks.append(module.register_forward_hook(partial(watch.end, name)))
    try:
        with torch.no_grad(), watch:
            returned = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    watch.read(returned)
    pairs = {(layer, norm) for layer, norm in watch.pairs() if layer in makers and norm in readers}
    return pairs, not watch.peeked


@final
class _Watch(TorchFunctionMode):
    """Sees which module, or none, reads the tensors that others own or put out."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ""  # the module that runs now
        self.peeked = False  # whether a value left the tensors
        self.calls: Counter[str] = Counter()
        self.owners: dict[int, str] = {}
        self.exposed: set[str] = set()  # modules whose own tensors are read elsewhere
        self.outputs: dict[int, tuple[str, Tensor]] = {}  # with its maker; held, so that its id stays its own
        self.readers: dict[int, set[str]] = {}

    def own(self, name: str, module: nn.Module) -> None:
        """Say whose these weights are; tied ones are read elsewhere by the one or the other."""
        for tensor in (*module.parameters(), *module.buffers()):
            self.exposed |= {name, self.owners[id(tensor)]} if id(tensor) in self.owners else set()
            self.owners[id(tensor)] = name

    def begin(self, name: str, module: nn.Module, inputs: Any) -> None:
        """A forward hook: the module starts."""
        self.inside = name
        self.calls[name] += 1

    def end(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """A forward hook: the module is done."""
        self.inside = ""
        weight: Any = module.weight
        if weight is not None and output.ndim == weight.ndim:  # its channels are the second axis, as a norm takes them
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
        """Note that the module that runs now reads this value, or the tensors in it."""
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
        """Maker and only reader of each output, both called just once and keeping their tensors to themselves."""
        fit = {name for name, calls in self.calls.items() if calls == 1} - self.exposed
        chains = ((maker, *self.readers[key]) for key, (maker, _) in self.outputs.items())
        return {(names[0], names[1]) for names in chains if len(names) == 2 and fit.issuperset(names)}
