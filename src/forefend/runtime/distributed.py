"""Processes: who does what where several do, as `torchrun` starts them: evaluating, training, and parting."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from forefend.checks import InputError, choose


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that share the work; alone unless `torchrun` or `accelerate launch` started several.

    Args:
        rank: number of this process, from 0; process 0 speaks and writes what there is one of.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    def mine(self, rows: Tensor, size: int) -> Tensor:
        """This process's rows: whole batches of `size`, dealt in turn, so that a batch holds what it would alone."""
        return torch.cat([rows[:0], *rows.split(size)[self.rank :: self.count]])

    def all_of(self, mine: dict[Any, Any]) -> dict[Any, Any]:
        """What every process has found, in each of them."""
        if self.count == 1:
            return mine
        return {key: value for part in gather_object([mine]) for key, value in part.items()}

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def process_group() -> ProcessGroup:
    """The processes that the environment names."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ProcessGroup()
    leave_group_at_exit()
    # What is exchanged is plain Python; and nobody knows how long another may be at its last batch.
    state = PartialState(cpu=True, timeout=timedelta(days=365))
    return ProcessGroup(state.process_index, state.num_processes)


def accelerator_on(device: str | None = None) -> Accelerator:
    """Where training takes place, shared by the processes that the environment names.

    Not for accelerate to choose: where it is not told to compute on the CPU and finds no CUDA, it leaves each process
    to train alone; and it takes an Apple GPU, which has no float64 for draws and distances.

    Args:
        device: `cpu` or `cuda`; None for CUDA where it is, else the CPU.
    """
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())


@torch.no_grad()
def broadcast_weights(networks: Iterable[nn.Module], accelerator: Accelerator) -> None:
    """Give the networks of every process the numbers that the first one's have, in place."""
    if accelerator.num_processes > 1:
        for network in networks:
            for tensor in chain(network.parameters(), network.buffers()):
                tensor.copy_(broadcast(tensor.detach().contiguous()))


def leave_group_at_exit() -> None:
    """Leave the group of processes, if this one is in any then, before the interpreter takes itself down.

    Gloo's threads may hold tensors still, and to let go of one while Python ends aborts the process (SIGABRT) after all
    its work is done.
    """
    atexit.unregister(leave_group)
    atexit.register(leave_group)


def leave_group() -> None:
    """Leave the group of processes, if this one is in any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_device(device: str | None) -> None:
    """Refuse an unknown device, and CUDA where torch finds none.

    Raises:
        InputError: either.
    """
    if device is not None:
        choose(device, {"cpu": 0, "cuda": 1}, "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device here: leave --device away, or give cpu.")


def accelerator_of(device: str | None) -> Accelerator:
    """The device that was asked for, or the best there is.

    Raises:
        InputError: an unknown device, or CUDA where torch finds none.
    """
    check_device(device)
    return accelerator_on(device)
