"""Fast: the same function in less time, to be attacked: frozen, folded, channels last, where wanted in bfloat16."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.checks import InputError, check_images
from forefend.models.batchnorm_folding import Affine, affine, foldable, folded, jittered, layers
from forefend.models.freezing import channels_last, frozen
from forefend.runtime.batch_size import out_of_memory
from forefend.runtime.precision import full_float32, supported_dtype
from forefend.runtime.rng import KeyedRNG

Plan = dict[str, str | None]  # each BatchNorm to rewrite: into the layer of that name, or into an Affine


def optimized_copy(network: nn.Module, x: Tensor, *, precision: str = "fp32") -> OptimizedCopy:
    """A fast stand-in for a network that is attacked and not trained, for our attacks and any other library's.

    It is a copy of its own: when the network's weights have moved, `refresh()` follows. The network is only read. In
    fp32 the outputs are the network's up to rounding, which on a GPU is TF32's unless torch is told otherwise. In bf16
    they are off by about a hundredth, which is enough to tell an attack where to go and not to tell whether an image is
    lost: ask the network itself.

    Args:
        network: images to logits or to images, any module that can be copied; it is taken in eval mode.
        x: a few images such as it will see, `(B, C, H, W)` in [0, 1], on its device: the copy is tried on them.
        precision: of weights and features, `fp32` or `bf16`, which on a device without such arithmetic becomes `fp32`;
            images, outputs and gradients are float32 in both.

    Raises:
        InputError: no module, an unknown precision, or images that the network does not take.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"Only a torch module can be prepared, not a {type(network).__name__}: wrap it in one.")
    check_images(x)
    dtype, reason = supported_dtype(precision, x.device)
    images = _trial(x)
    with full_float32():
        plan, notes = _proved(network, images)
    if dtype is torch.float32:
        return OptimizedCopy(network, plan, dtype, (*notes, f"It computes in fp32, for {reason}.") if reason else notes)
    try:
        prepared = OptimizedCopy(network, plan, dtype, notes)
        with torch.no_grad():
            finite = all(bool(tensor.isfinite().all()) for tensor in _tensors(prepared(images)))
        reason = "" if finite else "its outputs are no longer finite"
    except RuntimeError as error:
        reason = _reason(error)
    if not reason:
        return prepared
    notes = (*notes, f"It stays in fp32, as it does not work in {precision}: {reason}.")
    return OptimizedCopy(network, plan, torch.float32, notes)


@final
class OptimizedCopy(nn.Module):
    """A frozen copy of a network, made to be attacked; `prepare` makes one and proves it.

    It stays in eval mode and no parameter of it asks for a gradient, whatever is asked of it; gradients reach the
    images. It has no taps: a folded layer no longer puts out what the network's own layer does.

    Args:
        network: the original; it is read again by `refresh`, and not kept alive.
        plan: each BatchNorm to rewrite: into the layer of that name, or into a multiply-add where it is None.
        dtype: of the layers' weights and of the features.
        notes: a sentence for each thing that could not be done; none where all was.
    """

    def __init__(self, network: nn.Module, plan: Plan, dtype: torch.dtype, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.plan = dict(plan)
        self.dtype = dtype
        self.notes = notes
        self.copy = _rewritten(network, self.plan)
        channels_last(self.copy)
        for layer in layers(self.copy).values():
            layer.to(dtype)
        self._original = weakref.ref(network)
        self.register_load_state_dict_pre_hook(_refuse_weights)  # type: ignore[no-untyped-call]
        super().train(False)
        self.refresh()

    def forward(self, x: Tensor) -> Any:
        """What the network puts out for images `(B, C, H, W)`, in float32."""
        if x.requires_grad:
            # Other libraries flatten gradients with .view, so that channels last must not reach them.
            x = x.view_as(x)
            x.register_hook(Tensor.contiguous)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            return _float32(self.copy(x))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the network's weights as they are now, in place.

        Raises:
            InputError: the network is gone.
        """
        network = self._original()
        if network is None:
            raise InputError("The network that was prepared is gone, so there is nothing to refresh from: keep it.")
        modules = dict(network.named_modules())
        rewritten = {*self.plan, *filter(None, self.plan.values())}
        theirs = dict(_named_tensors(network))
        for name, tensor in _named_tensors(self.copy):
            if name.rpartition(".")[0] not in rewritten:
                tensor.copy_(theirs[name])
        for norm, layer in self.plan.items():
            target = self.copy.get_submodule(layer or norm)
            values = folded(modules[layer], modules[norm]) if layer else affine(modules[norm])
            for mine, value in zip((*target.parameters(), *target.buffers()), values, strict=True):
                mine.copy_(value)

    def train(self, mode: bool = True) -> OptimizedCopy:
        """Nothing: it stays in eval mode."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> OptimizedCopy:
        """Nothing: its parameters never ask for a gradient."""
        return self


def _proved(network: nn.Module, images: Tensor) -> tuple[Plan, tuple[str, ...]]:
    """What may be rewritten: tried on the network itself, and on a copy whose BatchNorms all differ."""
    plan = foldable(_tried(network, images), images)
    try:  # in float64 the rounding of deep networks hides nothing
        off = _error(network, plan, images.double())
        tolerance = 1e-8
    except RuntimeError as error:  # a network that makes float32 tensors of its own
        _reason(error)
        off = _error(network, plan, images)
        tolerance = 1e-4
    if plan and not off <= tolerance:  # NaN is no agreement
        return {}, (f"Folding would change the outputs by {off:.1g} of the largest, so no BatchNorm was folded.",)
    return plan, tuple(_notes(network, plan))


def _tried(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the network, in eval mode, that has seen images."""
    twin = copy.deepcopy(frozen(network))
    try:
        with torch.no_grad():
            twin(images)
    except RuntimeError as error:
        reason = _reason(error)
        raise InputError(f"The network does not take images of shape {tuple(images.shape[1:])} ({reason}).") from error
    return twin


def _reason(error: RuntimeError) -> str:
    """What a network that does not work says, in a line; a want of memory is no fault of its own, and raised again."""
    if out_of_memory(error):
        raise error
    return str(error).splitlines()[0]


@torch.no_grad()
def _error(network: nn.Module, plan: Plan, images: Tensor) -> float:
    """How far the outputs are off once rewritten, in parts of the largest, computed in the images' precision."""
    errors = [0.0]
    for original in (network, jittered(network)):
        plain = copy.deepcopy(frozen(original)).to(images.dtype)
        rewritten = OptimizedCopy(plain, plan, images.dtype).copy
        for a, b in zip(_tensors(plain(images)), _tensors(rewritten(images)), strict=True):
            errors.append(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)))
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def _notes(network: nn.Module, plan: Plan) -> Iterator[str]:
    """A sentence on the BatchNorms that follow no layer of weights, and one on those that nothing can be done about."""
    kind = nn.modules.batchnorm._BatchNorm
    every = [name for name, module in network.named_modules() if isinstance(module, kind)]
    alone = [name for name in every if name in plan and plan[name] is None]
    left = [name for name in every if name not in plan]
    if alone:
        yield (
            f"{len(alone)} of {len(every)} BatchNorms have no layer to themselves and became a multiply-add each: "
            f"{_some(alone)}."
        )
    if left:
        yield (
            f"{len(left)} of {len(every)} BatchNorms stay as they are, being subclassed, hooked, the whole network or "
            f"without statistics of their own: {_some(left)}."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _trial(x: Tensor) -> Tensor:
    """Two of these images, and two of noise."""
    some = x[:2].detach()
    noise = KeyedRNG(torch.arange(2), purpose="prepare").uniform(some[[0, -1]])
    return torch.cat((some, noise))


def _rewritten(network: nn.Module, plan: Plan) -> nn.Module:
    """A frozen copy with the modules that the plan asks for, their numbers not yet filled in."""
    twin = copy.deepcopy(frozen(network))
    for norm, layer in plan.items():
        scale, shift = affine(twin.get_submodule(norm))
        twin.set_submodule(norm, nn.Identity() if layer else Affine(scale, shift))
        if layer:
            target = twin.get_submodule(layer)
            weight: Any = target.weight
            target.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            target.bias = nn.Parameter(shift, requires_grad=False)
    return twin


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in what a network returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))


def _float32(value: Any) -> Any:
    """What a network returned, as anyone expects it: float32 and contiguous."""
    if isinstance(value, Tensor):
        return value.to(torch.float32).contiguous() if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(map(_float32, value))
    return {key: _float32(part) for key, part in value.items()} if type(value) is dict else value


def _refuse_weights(prepared: nn.Module, *arguments: Any) -> None:
    raise InputError("A prepared network holds folded weights: load into the network it was made of, then refresh().")
