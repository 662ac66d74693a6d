"""Fast frozen copies of networks to attack: folded BatchNorm, channels-last, optionally bfloat16."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn

from forefend.checks import InputError, check_images
from forefend.models.batchnorm_folding import Affine, affine, foldable, folded, layers, with_distinct_norms
from forefend.models.freezing import channels_last, deep_copy, frozen, gradients_enabled
from forefend.runtime.batch_size import out_of_memory
from forefend.runtime.precision import full_float32, supported_dtype
from forefend.runtime.rng import KeyedRNG

FoldPlan = dict[str, str | None]  # each BatchNorm to replace: folded into the layer of that name, or an Affine


@gradients_enabled()
def optimized_copy(network: nn.Module, x: Tensor, *, precision: str = "fp32") -> OptimizedCopy:
    """Return a fast frozen copy of a network, for attacks of this and other libraries.

    The copy does not follow the network's training; `refresh()` copies its current weights. In fp32 the outputs equal
    the network's up to rounding (TF32's on a GPU by default). In bf16 they differ by about 1%: enough to guide an
    attack, not to decide whether an image is misclassified; use the network for that.

    Args:
        network: images to logits or to images, any module that can be copied; it is used in eval mode.
        x: a few images, `(B, C, H, W)` in [0, 1], on the device of the network, to test the copy on.
        precision: of weights and features, `fp32` or `bf16`; devices without bf16 use fp32. Images, outputs and
            gradients are float32.

    Returns:
        The copy; its `notes` say what could not be done.

    Raises:
        InputError: no module, an unknown precision, or images that the network does not accept.

    Example:
        >>> import torch
        >>> from forefend.models.optimized_copy import optimized_copy
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten()).eval()
        >>> x = torch.rand(2, 1, 8, 8)
        >>> fast = optimized_copy(network, x)
        >>> torch.allclose(fast(x), network(x), atol=1e-5)
        True
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"{type(network).__name__} is no torch module: wrap it in one.")
    check_images(x)
    dtype, reason = supported_dtype(precision, x.device)
    images = _test_images(x)
    with full_float32():
        plan, notes = _verified_plan(network, images)
    if dtype is torch.float32:
        return OptimizedCopy(network, plan, dtype, (*notes, f"It computes in fp32, for {reason}.") if reason else notes)
    try:
        fast = OptimizedCopy(network, plan, dtype, notes)
        with torch.no_grad():
            finite = all(bool(tensor.isfinite().all()) for tensor in _tensors(fast(images)))
        reason = "" if finite else "its outputs are no longer finite"
    except RuntimeError as error:
        reason = _reason(error)
    if not reason:
        return fast
    notes = (*notes, f"It stays in fp32, as it does not work in {precision}: {reason}.")
    return OptimizedCopy(network, plan, torch.float32, notes)


@final
class OptimizedCopy(nn.Module):
    """A frozen copy of a network, made by `optimized_copy`.

    It stays in eval mode and its parameters require no gradient; gradients reach the images. It has no feature layers,
    as the output of a folded layer differs from the network's.

    Args:
        network: the original, read again by `refresh` through a weak reference.
        plan: each BatchNorm to replace: folded into the layer of that name, or a multiply-add for None.
        dtype: dtype of the layers' weights and of the features.
        notes: a sentence for each thing that could not be done.
    """

    def __init__(self, network: nn.Module, plan: FoldPlan, dtype: torch.dtype, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.plan = dict(plan)
        self.dtype = dtype
        self.notes = notes
        self.copy = _with_plan(network, self.plan)
        channels_last(self.copy)
        for layer in layers(self.copy).values():
            if layer.weight.dtype is torch.float32:
                layer.to(dtype)
        self._original = weakref.ref(network)
        self.register_load_state_dict_pre_hook(_refuse_weights)  # type: ignore[no-untyped-call]
        super().train(False)
        self.refresh()

    def forward(self, x: Tensor) -> Any:
        """Return the network's output for images `(B, C, H, W)`, in float32."""
        if x.requires_grad:
            # Other libraries call .view on gradients, which fails for channels-last.
            x = x.view_as(x)
            x.register_hook(Tensor.contiguous)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.dtype is torch.bfloat16):
            return _float32(self.copy(x))

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current weights of the network, in place.

        Raises:
            InputError: the network no longer exists.
        """
        network = self._original()
        if network is None:
            raise InputError("The original network no longer exists: keep a reference to it to refresh the copy.")
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
        """Return self, always in eval mode."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> OptimizedCopy:
        """Return self, whose parameters never require gradients."""
        return self


def _verified_plan(network: nn.Module, images: Tensor) -> tuple[FoldPlan, tuple[str, ...]]:
    """Return the plan, verified on the network and on a copy with different BatchNorms, and its notes."""
    own = {p.dtype for p in network.parameters() if p.is_floating_point()} - {torch.float32}
    if own:  # it casts images to a precision of its own, in which folding cannot be verified
        kinds = ", ".join(str(kind).removeprefix("torch.") for kind in own)
        return {}, (f"Its weights stay in its own {kinds}, so no BatchNorm was folded.",)
    plan = foldable(_eval_copy(network, images), images)
    try:  # in float64 rounding hides no error
        off = _error(network, plan, images.double())
        tolerance = 1e-8
    except RuntimeError as error:  # the network creates float32 tensors itself
        _reason(error)
        off = _error(network, plan, images)
        tolerance = 1e-4
    if plan and not off <= tolerance:  # also refuses NaN
        return {}, (f"Folding would change the outputs by {off:.1g} of the largest, so no BatchNorm was folded.",)
    return plan, tuple(_notes(network, plan))


def _eval_copy(network: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy in eval mode after one forward pass, which initializes lazy modules."""
    copied = deep_copy(frozen(network))
    try:
        with torch.no_grad():
            copied(images)
    except RuntimeError as error:
        reason = _reason(error)
        raise InputError(
            f"The network does not accept images of shape {tuple(images.shape[1:])} ({reason})."
        ) from error
    return copied


def _reason(error: RuntimeError) -> str:
    """Return the first line of an error of the network; out-of-memory errors are raised again."""
    if out_of_memory(error):
        raise error
    return str(error).splitlines()[0]


@torch.no_grad()
def _error(network: nn.Module, plan: FoldPlan, images: Tensor) -> float:
    """Return the largest error of the outputs after folding, relative to the largest output."""
    errors = [0.0]
    for original in (network, with_distinct_norms(network)):
        plain = deep_copy(frozen(original)).to(images.dtype)
        rewritten = OptimizedCopy(plain, plan, images.dtype).copy
        for a, b in zip(_tensors(plain(images)), _tensors(rewritten(images)), strict=True):
            errors.append(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30)))
    return max(errors) if all(map(math.isfinite, errors)) else math.inf


def _notes(network: nn.Module, plan: FoldPlan) -> Iterator[str]:
    """Yield a sentence on BatchNorms that follow no layer, and one on those that are kept."""
    kind = nn.modules.batchnorm._BatchNorm
    every = [name for name, module in network.named_modules() if isinstance(module, kind)]
    alone = [name for name in every if name in plan and plan[name] is None]
    left = [name for name in every if name not in plan]
    if alone:
        yield (
            f"{len(alone)} of {len(every)} BatchNorms follow no layer and became a multiply-add each: {_some(alone)}."
        )
    if left:
        yield (
            f"{len(left)} of {len(every)} BatchNorms are kept, as they are subclassed, hooked, the whole network or "
            f"without running statistics: {_some(left)}."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _test_images(x: Tensor) -> Tensor:
    """Return two of the images and two of noise."""
    some = x[:2].detach()
    noise = KeyedRNG(torch.arange(2), purpose="prepare").uniform(some[[0, -1]])
    return torch.cat((some, noise))


def _with_plan(network: nn.Module, plan: FoldPlan) -> nn.Module:
    """Return a frozen copy with the modules of the plan, whose values `refresh` sets."""
    copied = deep_copy(frozen(network))
    for norm, layer in plan.items():
        scale, shift = affine(copied.get_submodule(norm))
        copied.set_submodule(norm, nn.Identity() if layer else Affine(scale, shift))
        if layer:
            target = copied.get_submodule(layer)
            weight: Any = target.weight
            target.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
            target.bias = nn.Parameter(shift, requires_grad=False)
    return copied


def _named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(
        network.named_parameters(remove_duplicate=False),
        network.named_buffers(remove_duplicate=False),
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of a network's output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        yield from _tensors(tuple(value.values()))


def _float32(value: Any) -> Any:
    """Return a network's output in contiguous float32."""
    if isinstance(value, Tensor):
        return value.to(torch.float32).contiguous() if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(map(_float32, value))
    return {key: _float32(part) for key, part in value.items()} if type(value) is dict else value


def _refuse_weights(fast: nn.Module, *arguments: Any) -> None:
    raise InputError(
        "An optimized copy holds folded weights: load them into the original network, then call refresh()."
    )
