"""Averaging: an exponential moving average of the weights in training, which generalizes better than the last ones.

Source: Gowal et al., 2010.03593, and Rebuffi et al., 2103.01946, with decay 0.995 at every step; the warm-up is
TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from forefend.checks import InputError
from forefend.recipes.base import Trainable

Averaged = dict[str, Tensor]  # by player, network and name


def check_decay(decay: float | None) -> None:
    """Refuse a decay that averages nothing.

    Raises:
        InputError: not within (0, 1).
    """
    if decay is not None and not (isinstance(decay, int | float) and 0 < decay < 1):
        shown = f"{decay:g}" if isinstance(decay, int | float) else repr(decay)
        raise InputError(f"The decay of the weights' average is {shown}, expected between 0 and 1, such as 0.995.")


def live(players: Mapping[str, Trainable]) -> Averaged:
    """The tensors that an average follows: weights, and the statistics that belong to them, in place."""
    return {
        f"{role}/{name}/{key}": tensor
        for role, player in players.items()
        for name, network in player.networks.items()
        for key, tensor in network.state_dict().items()
    }


def begun(players: Mapping[str, Trainable]) -> Averaged:
    """An average that has seen the first weights alone."""
    return {name: tensor.detach().clone() for name, tensor in live(players).items()}


@torch.no_grad()
def follow(average: Averaged, players: Mapping[str, Trainable], decay: float, step: int) -> None:
    """Take the weights after a step into the average, in place.

    Args:
        average: what `begun` made.
        players: who learns.
        decay: how much of the average stays; less in the first steps, (1 + step) / (10 + step), so that the random
            first weights are soon forgotten.
        step: which step it was, from 0.
    """
    kept = min(decay, (1 + step) / (10 + step))
    for name, tensor in live(players).items():
        if tensor.is_floating_point():
            average[name].lerp_(tensor, 1 - kept)
        else:
            average[name].copy_(tensor)


@torch.no_grad()
def put(average: Averaged, players: Mapping[str, Trainable]) -> None:
    """Give the networks the averaged weights, in place; with an empty average they stay as they are."""
    for name, tensor in live(players).items() if average else ():
        tensor.copy_(average[name])


@contextmanager
def in_place(average: Averaged, players: Mapping[str, Trainable]) -> Iterator[None]:
    """Put the averaged weights into the networks for a while; training then goes on from its own."""
    own = begun(players) if average else {}
    put(average, players)
    try:
        yield
    finally:
        put(own, players)


def fitting(average: Averaged, players: Mapping[str, Trainable], *, resumed: bool) -> Averaged:
    """The average that training goes on with, on the networks' devices.

    Args:
        average: from the checkpoint; empty where there is none.
        players: who learns.
        resumed: whether there was a checkpoint.

    Raises:
        InputError: the checkpoint holds no average of these weights.
    """
    first = begun(players)
    if not resumed:
        return first
    if average.keys() != first.keys():
        raise InputError("The checkpoint holds no average of these weights: go on without --ema, or begin anew.")
    return {name: average[name].to(tensor.device) for name, tensor in first.items()}
