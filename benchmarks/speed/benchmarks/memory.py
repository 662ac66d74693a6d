"""Memory of a gradient: bytes per image that autograd saves between the passes, weights excluded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.speed.cases import MODELS
from benchmarks.speed.results import Figure, Measured, Outcome, Point, Setup, Work, figure
from benchmarks.speed.timing import device
from forefend.losses import ce
from forefend.models.optimized_copy import optimized_copy

NAME = "memory"
PLAIN, FP32, BF16 = "the network as loaded", "ours, fp32", "ours"
COUNT = 16


def points(quick: bool) -> list[Point]:
    """Return the network as loaded, and its optimized copies."""
    names = ["random weights"] if quick else ["resnet20", "defended resnet20"]
    return [Point(NAME, name, implementation) for name in names for implementation in (BF16, FP32, PLAIN)]


def work(precision: str | None, case: str) -> Work:
    """Set up the measurement of one forward pass; on a GPU the peak of allocated memory counts."""
    model = MODELS[case]
    x, y, _ = model.images(COUNT)
    network = model.network()
    f = network if precision is None else optimized_copy(network, x, precision=precision)

    def run() -> Outcome:
        kept = allocated(f, x, y) if device().type == "cuda" else saved(f, x, y)
        return {"seconds": 0.0, "bytes": kept / len(x), "images": len(x)}

    return run


def saved(f: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the bytes of the distinct storages that autograd saves; those of parameters and buffers do not count."""
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
    """Return the peak of the GPU's allocated memory during one gradient, less what was allocated before."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(ce(f(leaf), y).sum(), leaf)
    return torch.cuda.max_memory_allocated() - before


IMPLEMENTATIONS: Mapping[str, Setup] = {
    PLAIN: partial(work, None),
    FP32: partial(work, "fp32"),
    BF16: partial(work, "bf16"),
}


def figures(measured: Measured) -> Iterator[Figure]:
    """Compare the optimized copies with the network as loaded; the target for bf16 is a third."""
    for case in dict.fromkeys(point.case for point in measured):
        plain = Point(NAME, case, PLAIN)
        for own, target in ((Point(NAME, case, BF16), 3.0), (Point(NAME, case, FP32), None)):
            kept = {"bytes": measured[own][0]["bytes"], "bytes_against": measured[plain][0]["bytes"]}
            yield figure(measured, own, plain, unit="bytes", target=target, **kept)
