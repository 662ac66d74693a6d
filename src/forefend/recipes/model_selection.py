"""Validation: what a recipe does with its held-out training images. The state lives in the recipe's memory."""

from __future__ import annotations

import torch
from torch import nn

from forefend.recipes.base import Memory

LR_FACTOR = "lr_factor"  # the training loop multiplies every learning rate by it


def plateau(memory: Memory, loss: float, patience: int, factor: float) -> None:
    """Multiply the learning rates by `factor` when `loss` has not fallen for more than `patience` epochs.

    Args:
        memory: the recipe's; best loss, epochs since then and the factor are kept in it.
        loss: this epoch's loss on held-out images.
        patience: epochs that may pass without improvement.
        factor: what the learning rates are multiplied by.
    """
    best, waited = memory.get("plateau", torch.tensor([float("inf"), 0.0], dtype=torch.float64)).tolist()
    best, waited = (loss, 0.0) if loss < best else (best, waited + 1)
    lr_factor = memory.get(LR_FACTOR, torch.ones((), dtype=torch.float64))
    if waited > patience:
        lr_factor, waited = lr_factor * factor, 0.0
    memory[LR_FACTOR] = lr_factor
    memory["plateau"] = torch.tensor([best, waited], dtype=torch.float64)


def keep_best(memory: Memory, score: float, network: nn.Module) -> None:
    """Remember the network's tensors if `score` is the best so far; of equals, the earlier is kept."""
    if score > float(memory.get("best_score", torch.tensor(-float("inf")))):
        memory["best_score"] = torch.tensor(score, dtype=torch.float64)
        for name, tensor in network.state_dict().items():
            memory[f"best/{name}"] = tensor.detach().cpu().clone()


def put_back_best(memory: Memory, network: nn.Module) -> None:
    """Load the tensors that `keep_best` remembered; without any, the network stays as it is."""
    best = {name.removeprefix("best/"): tensor for name, tensor in memory.items() if name.startswith("best/")}
    if best:
        network.load_state_dict(best)
