"""How much memory does an image's gradient take? What autograd keeps between the passes, weights left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import TARGETS
from benchmarks.speed.results import Figure, Maker, Measured, Outcome, Point, Work, figure
from benchmarks.speed.timing import device
from forefend.losses import ce
from forefend.models.optimized_copy import optimized_copy

NAME = "memory"
PLAIN, FP32, BF16 = "the network as loaded", "ours, fp32", "ours"
COUNT = 16


def points(quick: bool) -> list[Point]:
    """The network as it was loaded, and prepared."""
    targets = ["random weights"] if quick else ["resnet20", "defended resnet20"]
    return [Point(NAME, target, subject) for target in targets for subject in (BF16, FP32, PLAIN)]


def work(precision: str | None, case: str) -> Work:
    """Bytes an image of one pass forwards on a target; on an accelerator, of the most that was ever allocated."""
    target = TARGETS[case]
    x, y, _ = target.images(COUNT)
    network = target.network()
    f = network if precision is None else optimized_copy(network, x, precision=precision)

    def run() -> Outcome:
        kept = allocated(f, x, y) if device().type == "cuda" else saved(f, x, y)
        return {"seconds": 0.0, "bytes": kept / len(x), "images": len(x)}

    return run


def saved(f: nn.Module, x: Tensor, y: Tensor) -> int:
    """Bytes of the distinct storages that autograd saves for the way back, those of parameters and buffers left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*f.parameters(), *f.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = ce(f(x.clone().requires_grad_()), y).sum()
    del loss  # until here the graph holds every storage, so that no address is used twice
    return sum(kept.values())


def allocated(f: nn.Module, x: Tensor, y: Tensor) -> int:
    """The accelerator's peak during one gradient, above what lay there before."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(ce(f(leaf), y).sum(), leaf)
    return torch.cuda.max_memory_allocated() - before


SUBJECTS: Mapping[str, Maker] = {PLAIN: partial(work, None), FP32: partial(work, "fp32"), BF16: partial(work, "bf16")}


def figures(measured: Measured) -> Iterator[Figure]:
    """How many times less ours keeps; a third was promised for bf16."""
    for case in dict.fromkeys(point.case for point in measured):
        plain = Point(NAME, case, PLAIN)
        for own, bar in ((Point(NAME, case, BF16), 3.0), (Point(NAME, case, FP32), None)):
            kept = {"bytes": measured[own][0]["bytes"], "bytes_against": measured[plain][0]["bytes"]}
            yield figure(measured, own, plain, unit="bytes", bar=bar, **kept)
