"""An exponential moving average of the weights, which generalizes better than the last ones.

Source: Gowal et al., 2010.03593, and Rebuffi et al., 2103.01946, with decay 0.995 at every step. The warm-up is that
of TensorFlow. The averaged weights are a network that no step has run, so that averaged BatchNorm statistics are not
its own; Izmailov et al., 1803.05407, estimate them anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from forefend.recipes.base import Trainable


def averaged(trainables: Iterable[Trainable], decay: float) -> AveragedModel:
    """Return an average that holds the current weights and statistics of the networks in training.

    `update_parameters(trained_networks(trainables))` adds the weights after a step. The average keeps the share
    `decay`, and in step t = 0, 1, … at most (1 + t) / (10 + t), so that it soon forgets the random first weights.
    """

    def average(mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        kept = min(decay, int(count) / (9 + int(count)))  # count is t + 1
        return mean.lerp(value, 1 - kept) if value.is_floating_point() else value

    networks = trained_networks(trainables)
    model = AveragedModel(networks, avg_fn=average, use_buffers=True)
    model.update_parameters(networks)
    return model


def trained_networks(trainables: Iterable[Trainable]) -> nn.ModuleList:
    """The networks of all trainables as one module."""
    return nn.ModuleList(network for trainable in trainables for network in trainable.networks.values())


def has_statistics(networks: nn.Module) -> bool:
    """Whether a network keeps BatchNorm statistics."""
    return any(isinstance(m, _BatchNorm) and m.running_mean is not None for m in networks.modules())


@contextmanager
def estimated_anew(networks: nn.Module) -> Iterator[None]:
    """Let BatchNorm statistics become the mean over the batches that the networks see in the context, in training mode.

    Until its first batch, a layer keeps its statistics for attacks, which see it in eval mode.
    """
    norms = [m for m in networks.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = None  # a plain mean
        norm.num_batches_tracked.zero_()  # type: ignore[union-attr]
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]


def load_average(average: AveragedModel, networks: nn.ModuleList) -> None:
    """Copy the averaged weights into the networks."""
    networks.load_state_dict(average.module.state_dict())


@contextmanager
def average_loaded(average: AveragedModel | None, networks: nn.ModuleList) -> Iterator[None]:
    """Copy the averaged weights, if there are any, into the networks, and restore the networks' own afterwards."""
    own = {name: tensor.clone() for name, tensor in networks.state_dict().items()} if average else {}
    if average:
        load_average(average, networks)
    try:
        yield
    finally:
        if average:
            networks.load_state_dict(own)
