from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.transport import (
    apply_coupling,
    gather_windows,
    identity_coupling,
    offset_lengths,
    project_to_box,
    random_moves,
    scale_to_budget,
    solve_for_budget,
    total_mass,
    transport_cost,
    valid_offsets,
)

seeds = st.integers(0, 2**31)
WINDOWS = pytest.mark.parametrize("window", [3, 5])


def images(seed: int, shape: tuple[int, ...] = (2, 3, 4, 5)) -> Tensor:
    """Return float64 images with some black and white pixels."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)


def random_coupling(x: Tensor, window: int, seed: int = 0) -> Tensor:
    """Return a coupling that spreads the mass of each pixel at random over valid offsets."""
    shape = (*x.shape[:2], window**2, x[0, 0].numel())
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype) * valid_offsets(x, window)
    return x.flatten(2).unsqueeze(2) * weight / weight.sum(2, keepdim=True)


def test_offset_lengths_match_known_values() -> None:
    root2, root5, root8 = 2**0.5, 5**0.5, 8**0.5
    torch.testing.assert_close(
        offset_lengths(3, torch.zeros(1))[:, 0], torch.tensor([root2, 1, root2, 1, 0, 1, root2, 1, root2])
    )
    five = offset_lengths(5, torch.zeros(1)).view(5, 5)
    torch.testing.assert_close(five[0], torch.tensor([root8, root5, 2, root5, root8]))
    assert five[2, 2] == 0


def test_apply_coupling_moves_mass_by_offset() -> None:
    x = torch.zeros(1, 1, 3, 4)
    x[0, 0, 1, 1] = 0.8
    coupling = identity_coupling(x, 3)
    # Offset 5 of 3 × 3 is one to the right, offset 0 one up and one to the left; pixel 5 is row 1, column 1.
    coupling[0, 0, 4, 5], coupling[0, 0, 5, 5], coupling[0, 0, 0, 5] = 0.4, 0.3, 0.1
    expected = torch.zeros(1, 1, 3, 4)
    expected[0, 0, 1, 1], expected[0, 0, 1, 2], expected[0, 0, 0, 0] = 0.4, 0.3, 0.1
    torch.testing.assert_close(apply_coupling(coupling, x), expected)
    torch.testing.assert_close(transport_cost(coupling), torch.tensor([0.3 + 0.1 * 2**0.5]))


def test_valid_offsets_stay_on_the_image() -> None:
    on = valid_offsets(torch.zeros(1, 1, 2, 2), 3)[0, 0]
    assert on[:, 0].nonzero().flatten().tolist() == [4, 5, 7, 8]
    assert on[:, 3].nonzero().flatten().tolist() == [0, 1, 3, 4]


@WINDOWS
def test_identity_coupling_changes_and_costs_nothing(window: int) -> None:
    x = images(0)
    torch.testing.assert_close(apply_coupling(identity_coupling(x, window), x), x)
    assert (transport_cost(identity_coupling(x, window)) == 0).all()


@WINDOWS
@given(seed=seeds)
def test_apply_coupling_conserves_mass_of_channels(window: int, seed: int) -> None:
    x = images(seed)
    moved = apply_coupling(random_coupling(x, window, seed), x)
    torch.testing.assert_close(moved.sum((2, 3)), x.sum((2, 3)))
    torch.testing.assert_close(total_mass(moved), moved.sum((1, 2, 3)))


@WINDOWS
def test_gather_windows_is_transpose_of_apply_coupling(window: int) -> None:
    x, g = images(0), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    coupling = torch.randn(2, 3, window**2, 20, dtype=torch.float64)
    torch.testing.assert_close((apply_coupling(coupling, x) * g).sum(), (coupling * gather_windows(g, window)).sum())


@given(seed=seeds, share=st.floats(0, 1.5))
def test_scale_to_budget_spends_exactly_the_budget(seed: int, share: float) -> None:
    x = images(seed)
    coupling = random_coupling(x, 5, seed)
    budget = share * transport_cost(coupling)
    short = scale_to_budget(coupling, x, budget)
    torch.testing.assert_close(transport_cost(short), torch.minimum(budget, transport_cost(coupling)))
    torch.testing.assert_close(short.sum(2), x.flatten(2))
    assert (short >= 0).all()


def test_scale_to_budget_corrects_rounded_sums() -> None:
    x = images(1)
    coupling = random_coupling(x, 3) * (1 + 1e-6)
    short = scale_to_budget(coupling, x, transport_cost(coupling))
    torch.testing.assert_close(short.sum(2), x.flatten(2), atol=1e-15, rtol=0)


def test_project_to_box_returns_known_shares() -> None:
    x = torch.tensor([0.4, 0.8, 0.6], dtype=torch.float64).view(1, 1, 1, 3)
    coupling = identity_coupling(x, 3)
    # Both neighbors send 0.2 into the middle, which then holds 1.2: each gets 0.1 back.
    coupling[0, 0, :, 0] = torch.tensor([0, 0, 0, 0, 0.2, 0.2, 0, 0, 0])
    coupling[0, 0, :, 2] = torch.tensor([0, 0, 0, 0.2, 0.4, 0, 0, 0, 0])
    boxed = project_to_box(coupling, x)
    expected = torch.tensor([0.3, 1.0, 0.5], dtype=torch.float64).view(1, 1, 1, 3)
    torch.testing.assert_close(apply_coupling(boxed, x), expected)
    torch.testing.assert_close(transport_cost(boxed), torch.tensor([0.2], dtype=torch.float64))


@WINDOWS
@given(seed=seeds)
def test_project_to_box_lowers_every_move(window: int, seed: int) -> None:
    x = images(seed)
    coupling = random_coupling(x, window, seed)
    boxed = project_to_box(coupling, x)
    assert apply_coupling(boxed, x).max() <= 1 + 1e-12
    torch.testing.assert_close(boxed.sum(2), x.flatten(2))
    moves = torch.arange(window**2) != window**2 // 2
    assert (boxed[:, :, moves] <= coupling[:, :, moves] + 1e-12).all()
    assert (boxed >= 0).all()


def test_project_to_box_of_white_image_moves_nothing() -> None:
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    boxed = project_to_box(random_coupling(x, 3), x)
    assert apply_coupling(boxed, x).max() <= 1 + 1e-12


def test_project_to_box_inside_is_unchanged() -> None:
    x = images(3) / 30
    coupling = random_coupling(x, 5)
    torch.testing.assert_close(project_to_box(coupling, x), coupling)


def test_random_moves_send_each_pixel_to_one_offset() -> None:
    x, rng = images(4), KeyedRNG(torch.tensor([7, 9]))
    coupling = random_moves(x, 5, rng)
    assert ((coupling > 0).sum(2) == (x.flatten(2) > 0)).all()
    assert (coupling[~valid_offsets(x, 5).expand_as(coupling)] == 0).all()
    torch.testing.assert_close(apply_coupling(coupling, x).sum((2, 3)), x.sum((2, 3)))
    assert torch.equal(random_moves(x[1:], 5, rng.select(torch.tensor([1]))), coupling[1:])


def test_solve_for_budget_mixes_at_discontinuity() -> None:
    """A pixel of mass 1 moves to an empty one at a multiplier below 0.5, and stays above it."""
    x = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    gone = identity_coupling(x, 3)
    gone[0, 0, 4, 0], gone[0, 0, 5, 0] = 0, 1

    def solve(price: Tensor) -> Tensor:
        return torch.where(price.view(-1, 1, 1, 1) < 0.5, gone, identity_coupling(x, 3))

    for budget in (0.0, 0.3, 1.0, 2.0):
        spent = solve_for_budget(solve, torch.tensor([budget]).double(), torch.tensor([1.0]).double(), halvings=10)
        torch.testing.assert_close(transport_cost(spent), torch.tensor([min(budget, 1.0)]).double())
