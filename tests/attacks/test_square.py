from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forefend import data
from forefend.attacks.base import at_step
from forefend.attacks.square import Square, _bump, _moved_mass, _square, _stripes, _tiles
from forefend.checks import InputError
from forefend.losses import margin
from forefend.models.classifiers.pretrained import load_weights
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

THREATS = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
DRAW = KeyedRNG(torch.arange(40), seed=3)
GREY = torch.full((40, 3, 12, 10), 0.5)


def binary(pixels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2).double()).requires_grad_(False)


def test_linf_comes_to_the_optimum_of_a_linear_classifier() -> None:
    """Single pixels are squares too, so that the best corner of the ball is found one pixel after another."""
    f, x, y = binary(32), torch.rand(6, 2, 4, 4, dtype=torch.float64), torch.arange(6) % 2
    weight = f[1].weight
    best = (x + 0.1 * (weight[1 - y] - weight[y]).view(-1, 2, 4, 4).sign()).clamp(0, 1)
    x_adv = Square(Linf(0.1), 500, horizon=100)(f, x, y, rng=KeyedRNG(torch.arange(6)))
    torch.testing.assert_close(x_adv, best)


def test_l2_comes_near_the_optimum_of_a_linear_classifier() -> None:
    f, x, y = binary(72), torch.full((6, 2, 6, 6), 0.5, dtype=torch.float64), torch.arange(6) % 2
    weight = f[1].weight
    gain = 0.5 * (weight[1 - y] - weight[y]).norm(dim=1)
    x_adv = Square(L2(0.5), 800, horizon=400)(f, x, y, rng=KeyedRNG(torch.arange(6)))
    assert (margin(f(x_adv), y) - margin(f(x), y) > 0.5 * gain).all()
    assert (margin(f(x_adv), y) - margin(f(x), y) <= gain + 1e-9).all()


@THREATS
def test_square_needs_logits_only_and_steps_are_queries(threat: ThreatModel, x: Tensor, y: Tensor) -> None:
    batches = []

    def rounding(batch: Tensor) -> Tensor:
        """A classifier without a gradient, called outside autograd."""
        assert not torch.is_grad_enabled()
        batches.append(batch)
        return torch.from_numpy((batch.numpy() * 8).round()).flatten(1)[:, :4]

    x_adv = Square(threat, 9)(rounding, x, y, rng=KeyedRNG(torch.arange(6)))
    assert len(batches) == 9 == Square(threat, 9).forwards
    assert Square(threat, 9).gradients == 0
    assert all(threat.allows(batch, x).all() for batch in batches)
    losses = torch.stack([margin(torch.from_numpy((b.numpy() * 8).round()).flatten(1)[:, :4], y) for b in batches])
    got = margin(torch.from_numpy((x_adv.numpy() * 8).round()).flatten(1)[:, :4], y)
    assert torch.equal(got, losses.amax(0))


def sides(attack: Square, x: Tensor, squares: list[int]) -> list[int]:
    return attack._sides(torch.tensor(squares), x).tolist()


def test_squares_shrink_as_the_paper_says() -> None:
    """Side √(p h w), p halved after 10, 50, 200, … squares of 10,000, each image at its own place in the schedule."""
    x, marks = torch.zeros(6, 1, 28, 28), [0, 10, 11, 50, 51, 201]
    expected = [round(math.sqrt(0.8 * 784 / 2**halved)) for halved in (0, 0, 1, 1, 2, 3)]
    assert expected == [25, 25, 18, 18, 13, 9]
    assert sides(Square(Linf(0.1), 5000), x, marks) == expected
    # With a horizon of 1000 queries everything comes ten times as early.
    assert sides(Square(Linf(0.1), 5000, horizon=1000), x, [0, 1, 2, 5, 6, 21]) == expected
    assert sides(Square(Linf(0.1), 5000), x, [8001] * 6) == [1] * 6
    assert sides(Square(Linf(0.1), 5000, area=1.0), x[:, :, :9], [0]) == [9]


def test_the_schedule_counts_squares_and_not_the_start(monkeypatch: pytest.MonkeyPatch, x: Tensor, y: Tensor) -> None:
    counted, plain = [], Square._sides
    monkeypatch.setattr(Square, "_sides", lambda self, n, x: counted.append(int(n[0])) or plain(self, n, x))
    Square(Linf(0.1), 4)(lambda x: x.flatten(1), x, y, rng=KeyedRNG(torch.arange(6)))
    assert counted[1:] == [0, 1, 2]


def test_stripes_are_columns_at_the_ends_of_the_ball() -> None:
    delta = _stripes(Linf(0.1), GREY, DRAW) - GREY
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.1))
    assert (delta == delta[:, :, :1]).all()
    assert abs(delta.sign().mean()) < 0.1
    assert len({tuple(row) for row in delta[:, 0, 0].sign().tolist()}) > 30


def test_a_square_is_a_square_anywhere_in_the_image() -> None:
    side = torch.arange(40) % 10 + 1
    painted = _square(Linf(0.1), GREY, GREY, side, DRAW)
    moved = (painted != GREY).any(1)
    assert torch.equal(moved.sum((1, 2)), side**2)
    assert torch.equal(moved.any(2).sum(1), side)
    assert torch.equal(moved.any(1).sum(1), side)
    delta = (painted - GREY).flatten(2)
    torch.testing.assert_close(delta.abs().amax(2), torch.full((40, 3), 0.1))
    assert (delta.amax(2) * delta.amin(2) == 0).all()  # one sign a channel
    ones = [_square(Linf(0.1), GREY, GREY, torch.ones_like(side), DRAW.fold_in(step=s)) != GREY for s in range(40)]
    assert torch.stack(ones).any(0).any(0).all()  # the border too


def looped_bump(side: int) -> Tensor:
    """The paper's bump, ring upon ring: Eq. 2 and the lines under it."""

    def half(height: int, width: int) -> Tensor:
        out = torch.zeros(height, width, dtype=torch.float64)
        middle = (height // 2, width // 2)
        for k in range(max(middle) + 1):
            low = [max(m - k, 0) for m in middle]
            out[low[0] : middle[0] + k + 1, low[1] : middle[1] + k + 1] += 1 / (k + 1) ** 2
        return out / out.norm()

    both = torch.cat([half(side // 2, side), -half(side - side // 2, side)])
    return both / both.norm()


@pytest.mark.parametrize("side", [3, 4, 5, 7, 9])
def test_bump_equals_the_reference_loop(side: int) -> None:
    rows, columns = torch.arange(10)[None] - 1, torch.arange(12)[None] - 2
    for turned in (False, True):
        bump = _bump(rows, columns, torch.tensor([side]), torch.tensor([turned]))[0, 0]
        expected = looped_bump(side)
        expected = expected.T if turned else expected
        torch.testing.assert_close(bump[1 : 1 + side, 2 : 2 + side], expected.float())
        assert bump.count_nonzero() == expected.count_nonzero()


def test_l2_perturbations_use_the_whole_radius_and_window() -> None:
    threat, side = L2(0.5), torch.full((40,), 4)
    start = _tiles(threat, GREY, DRAW)
    full = torch.full((40,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(threat.distance(start, GREY), full, atol=1e-6, rtol=0)
    assert ((start != GREY).flatten(1).sum(1) > 250).all()
    later = _moved_mass(threat, start, GREY, side, DRAW)
    torch.testing.assert_close(threat.distance(later, GREY), full, atol=1e-6, rtol=0)
    # Outside the two windows nothing moves but for the common scale; one window is gray, the other one a bump.
    unmoved = (later - GREY).sign() == (start - GREY).sign()
    assert (unmoved.all(1).sum((1, 2)) >= 120 - 2 * 25 - 2).all()
    assert ((later == GREY).all(1).sum((1, 2)) > 0).sum() > 30


def test_the_mass_of_windows_is_kept_channel_by_channel() -> None:
    """Without unused budget, the new window has the length that both windows had: Algorithm 3, line 9."""
    x = torch.full((40, 1, 12, 10), 0.5, dtype=torch.float64)
    threat = L2(0.5)
    start = _tiles(threat, x, DRAW)
    later = _moved_mass(threat, start, x, torch.full((40,), 5), DRAW)
    torch.testing.assert_close((later - x).square().sum((1, 2, 3)), (start - x).square().sum((1, 2, 3)))
    same = ((later - start).abs() < 1e-12).all(1)
    assert (same.sum((1, 2)) >= 120 - 2 * 25).all()


def test_unused_length_is_shared_out_over_the_channels() -> None:
    x = torch.full((40, 3, 12, 10), 0.5, dtype=torch.float64)
    shorter = x + (_tiles(L2(0.5), x, DRAW) - x) * torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1)
    later = _moved_mass(L2(0.5), shorter, x, torch.full((40,), 5), DRAW)
    before, after = ((image - x).square().sum((2, 3)) for image in (shorter, later))
    torch.testing.assert_close(after, before + (0.5**2 - before.sum(1, keepdim=True)) / 3)


@THREATS
def test_query_draws_few_random_numbers(
    threat: ThreatModel, monkeypatch: pytest.MonkeyPatch, x: Tensor, y: Tensor
) -> None:
    drawn, uniform = [], KeyedRNG.uniform
    monkeypatch.setattr(KeyedRNG, "uniform", lambda self, like: drawn.append(like.shape[1]) or uniform(self, like))
    attack = Square(threat, 5)
    state = attack.begin(x, KeyedRNG(torch.arange(6)))
    drawn.clear()
    attack.advance(lambda x: x.flatten(1), state, x, y, rng=KeyedRNG(torch.arange(6)))
    assert sum(drawn) <= 8


@pytest.mark.parametrize("threat", [Linf(0.2), L2(2.0)], ids=str)
def test_as_many_queries_as_the_authors_need(real_data: Path, threat: ThreatModel) -> None:
    """Queries until an image is lost, and images lost within 60: only chance tells them from those of their code."""
    square = pytest.importorskip("pyautoattack.square")
    file = real_data / "classifiers" / "convex-fashion-certified.pth"
    f = load_weights("fastat", file, mean=0, std=1, channels=1, size=28).eval().requires_grad_(False)
    x, y, _ = data.load("fashion-mnist", split="test", data_dir=real_data).batch(torch.arange(160))
    right = f(x).argmax(1) == y
    x, y = x[right], y[right]
    attack, rng = Square(threat, 61, horizon=60), KeyedRNG(torch.arange(len(x)))
    state, mine = attack.begin(x, rng), torch.ones(len(x))
    for step in range(attack.steps):
        state = attack.advance(f, state, x, y, rng=at_step(rng, attack, step))
        mine += state["best"] <= 0
    theirs = square.SquareAttack(f, norm=threat.norm, n_queries=60, eps=threat.radius, resc_schedule=True)
    theirs.init_hyperparam(x)
    queries, x_adv = theirs.attack_single_run(x, y)
    assert threat.allows(attack.finish(state), x).all()
    lost = torch.stack([f(batch).argmax(1) != y for batch in (attack.finish(state), x_adv)]).float()
    apart = torch.stack([mine.clamp_max(61) - queries, lost[0] - lost[1]])
    assert (apart.mean(1).abs() < 3 * apart.std(1) / math.sqrt(len(x)) + 0.01).all()
    assert 0.1 < lost[1].mean() < 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "0 steps and horizon 10000.*at least 1"),
        ({"horizon": 0}, "horizon 0"),
        ({"area": 1.5}, "area.*1.5.*share"),
        ({"area": 0.0}, "area.*0.*share"),
    ],
)
def test_bad_settings_raise(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Square(**{"threat": Linf(0.1), "steps": 5, **settings})


def test_unsupported_threat_model_raises() -> None:
    class Diamond(L2):
        pass

    with pytest.raises(InputError, match=r"Diamond:0.5.*Linf or L2"):
        Square(Diamond(0.5), 5)
