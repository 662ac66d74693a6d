from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forefend.checks import InputError
from forefend.models.classifiers import Normalized, build


def test_each_channel_is_shifted_and_divided_by_its_own() -> None:
    x = torch.tensor([0.5, 0.75, 1.0]).view(1, 3, 1, 1)
    normalized = Normalized(nn.Flatten(), (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    assert normalized(x).tolist() == [[0.0, 2.0, 0.5]]


@given(mean=st.floats(0, 1), std=st.floats(0.05, 2))
def test_one_number_serves_every_channel(mean: float, std: float) -> None:
    x = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(Normalized(nn.Identity(), mean, std)(x), (x - mean) / std)
    torch.testing.assert_close(Normalized(nn.Identity(), mean, [std] * 3)(x), (x - mean) / std)


def test_mean_0_and_std_1_change_no_bit() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(Normalized(nn.Identity(), 0, 1)(x), x)


def test_mean_and_std_are_saved_and_move_with_the_network() -> None:
    normalized = Normalized(build("mlp", channels=1, classes=2, size=4), [0.25], [0.5]).double()
    state = normalized.state_dict()
    assert state["mean"].shape == state["std"].shape == (1, 1, 1, 1)
    assert state["std"].dtype == torch.float64
    assert {"mean", "std"} < set(state)
    assert not any(parameter is normalized.mean for parameter in normalized.parameters())
    other = Normalized(build("mlp", channels=1, classes=2, size=4), [0], [1]).double()
    other.load_state_dict(state)
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    assert torch.equal(other(x), normalized(x))


@pytest.mark.parametrize(
    ("mean", "std", "words"),
    [
        (None, 1, r"mean .*missing.*mean=0 and std=1"),
        (0, None, r"std .*missing.*mean=0 and std=1"),
        (0, 0, r"std is 0.*above 0"),
        ([0, 0], [1, -1], r"std is \[1, -1\].*above 0"),
        (123.7, 58.4, r"mean is 123.7.*255"),
        (-0.5, 1, r"mean is -0.5.* \[0, 1\]"),
        ([0.5] * 3, [0.2] * 2, r"3 means and 2 stds"),
        ([], 1, r"mean is \[\], expected one finite number, or one for each channel"),
        (0, float("inf"), r"std is inf, expected one finite number"),
        (float("nan"), 1, r"mean is nan, expected one finite number"),
        ("none", 1, r"mean is 'none', expected one finite number"),
        ({}, 1, r"mean is \{\}, expected one finite number"),
    ],
)
def test_bad_normalization_raises(mean: object, std: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Normalized(nn.Identity(), mean, std)


@pytest.mark.parametrize(("mean", "std", "words"), [([0.5] * 2, 1, "2 means for 3"), (0, [1.0] * 2, "2 stds for 3")])
def test_normalization_of_other_channels_than_the_images_raises(mean: object, std: object, words: str) -> None:
    with pytest.raises(InputError, match=rf"There are {words} channels: give one, or one for each channel\."):
        Normalized(nn.Identity(), mean, std)(torch.rand(1, 3, 2, 2))
