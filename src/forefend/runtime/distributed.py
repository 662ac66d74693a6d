"""Processes that share the work of an evaluation or a training, as `torchrun` starts them."""

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
from forefend.runtime.parent import end_with_torchrun


@dataclass(frozen=True)
class ProcessGroup:
    """The rank of this process, and the number of processes; rank 0 prints."""

    rank: int = 0
    count: int = 1

    def mine(self, rows: Tensor, size: int) -> Tensor:
        """Return the rows of this process: every `count`-th batch of `size` of all rows."""
        return torch.cat([rows[:0], *rows.split(size)[self.rank :: self.count]])

    def all_of(self, mine: dict[Any, Any]) -> dict[Any, Any]:
        """Return the union of the dictionaries of all processes, in each of them."""
        if self.count == 1:
            return mine
        return {key: value for part in gather_object([mine]) for key, value in part.items()}

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            PartialState().wait_for_everyone()


def process_group() -> ProcessGroup:
    """Return the group in the environment variables of `torchrun`, else one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ProcessGroup()
    leave_group_at_exit()
    # Plain Python objects are exchanged on the CPU, and the last batch of another process may take
    # any time.
    state = PartialState(cpu=True, timeout=timedelta(days=365))
    return ProcessGroup(state.process_index, state.num_processes)


def accelerator_on(device: str | None = None) -> Accelerator:
    """Return the accelerator of a training on `cpu` or `cuda`; None for CUDA if available.

    Without CUDA, accelerate itself would train each process alone, or use an Apple GPU, which has
    no float64.
    """
    return Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())


@torch.no_grad()
def broadcast_weights(networks: Iterable[nn.Module], accelerator: Accelerator) -> None:
    """Copy the parameters and buffers of rank 0 into the networks of all processes."""
    if accelerator.num_processes > 1:
        for network in networks:
            for tensor in chain(network.parameters(), network.buffers()):
                tensor.copy_(broadcast(tensor.detach().contiguous()))


def leave_group_at_exit() -> None:
    """Leave the process group at exit, and end with torchrun; Gloo's threads could otherwise abort the process."""
    end_with_torchrun()
    atexit.unregister(leave_group)
    atexit.register(leave_group)


def leave_group() -> None:
    """Leave the process group, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_device(device: str | None) -> None:
    """Refuse an unknown device, or CUDA where torch finds none."""
    if device is not None:
        choose(device, {"cpu": 0, "cuda": 1}, "device")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no CUDA device here: choose the device cpu, or leave it out.")


def accelerator_of(device: str | None) -> Accelerator:
    """Return the accelerator of a training after `check_device`."""
    check_device(device)
    return accelerator_on(device)
