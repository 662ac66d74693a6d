from __future__ import annotations

import copy

import pytest
import torch
from helpers.toy_networks import classifier, held, untouched
from hypothesis import given
from hypothesis import strategies as st

from forefend.recipes.model_selection import keep_best, reduce_lr_on_plateau, restore_best
from forefend.recipes.state import TrainState


@given(
    losses=st.lists(st.integers(0, 6), min_size=1, max_size=40), patience=st.integers(0, 4), factor=st.floats(0.1, 0.9)
)
def test_reduce_lr_on_plateau_matches_torch(losses: list[int], patience: int, factor: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=0.0, eps=0.0
    )
    state = TrainState()
    for loss in losses:
        theirs.step(loss / 7)
        reduce_lr_on_plateau(state, loss / 7, patience, factor)
        assert state.lr_factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_reduce_lr_on_plateau_matches_hand_values() -> None:
    state = TrainState()
    factors = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0):
        reduce_lr_on_plateau(state, loss, 1, 0.5)
        factors.append(state.lr_factor)
    assert factors == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]


def test_restore_best_loads_the_best_weights() -> None:
    network, state = classifier(), TrainState()
    best = None
    for score in (0.2, 0.7, 0.7, 0.1):
        with torch.no_grad():
            for tensor in network.state_dict().values():
                tensor += 1
        keep_best(state, score, network)
        if best is None or (score == 0.7 and best[0] != 0.7):
            best = (score, copy.deepcopy(network.state_dict()))
    assert best is not None
    assert not torch.equal(network.state_dict()["0.weight"], best[1]["0.weight"])
    restore_best(state, network)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, best[1][name]), name
    assert state.best_score == 0.7  # of equals the earlier


def test_keep_best_with_score_0_keeps_the_weights() -> None:
    network, state = classifier(), TrainState()
    keep_best(state, 0.0, network)
    assert state.best_score == 0.0


def test_keep_best_copies_the_weights() -> None:
    network, state = classifier(), TrainState()
    keep_best(state, 0.5, network)
    with torch.no_grad():
        network[0].weight.zero_()
    assert (state.best_weights["0.weight"] != 0).any()
    assert not state.best_weights["0.weight"].requires_grad


def test_restore_best_without_a_best_changes_nothing() -> None:
    network = classifier()
    before = held(network)
    restore_best(TrainState(), network)
    assert untouched(network, before)
