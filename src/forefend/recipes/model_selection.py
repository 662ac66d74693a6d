"""What recipes do with held-out training images: lower the learning rate, or keep the best weights."""

from __future__ import annotations

from torch import nn

from forefend.recipes.state import TrainState


def reduce_lr_on_plateau(state: TrainState, loss: float, patience: int, factor: float) -> None:
    """Multiply the learning rates by `factor` if `loss` has not fallen for more than `patience` epochs.

    Args:
        state: holds the lowest loss, the epochs since then and the factor so far.
        loss: this epoch's validation loss.
        patience: number of epochs without improvement that change nothing.
        factor: factor on the learning rates.
    """
    if loss < state.plateau_loss:
        state.plateau_loss, state.plateau_epochs = loss, 0
    else:
        state.plateau_epochs += 1
    if state.plateau_epochs > patience:
        state.lr_factor, state.plateau_epochs = state.lr_factor * factor, 0


def keep_best(state: TrainState, score: float, network: nn.Module) -> None:
    """Copy the network's weights into the state if `score` is the highest so far; the earlier of equals is kept."""
    if score > state.best_score:
        state.best_score = score
        state.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def restore_best(state: TrainState, network: nn.Module) -> None:
    """Load the weights that `keep_best` kept, if any."""
    if state.best_weights:
        network.load_state_dict(state.best_weights)
