"""What every attack on the shelf keeps to, whatever it does. A new attack is a line of each table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forefend.attacks.auto_pgd import APGD, never
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.base import Attack, Iterative, State, at_step
from forefend.attacks.carlini_wagner import CarliniWagner
from forefend.attacks.momentum import Diverse, Momentum, Smoothed, di_fgsm, mi_fgsm, ti_bim
from forefend.attacks.noise import Noise
from forefend.attacks.pgd import PGD, fgsm, from_x
from forefend.attacks.square import Square
from forefend.attacks.wasserstein import FrankWolfeWasserstein, ProjectedWasserstein, at_random
from forefend.losses import ce, dlr, margin
from forefend.models.fingerprint import state_digest
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.wasserstein import Wasserstein

LINF, EUCLID, EARTH = Linf(0.1), L2(1.0), Wasserstein(0.3, window=3)

# Those that go step by step.
ITERATIVE: dict[str, Iterative] = {
    "PGD linf": PGD(LINF, 6, 0.03),
    "PGD l2": PGD(EUCLID, 6, 0.3),
    "FGSM": fgsm(LINF),
    "APGD linf": APGD(LINF, 30),
    "APGD l2": APGD(EUCLID, 12, dlr),
    "Square linf": Square(LINF, 30, horizon=30),
    "Square l2": Square(EUCLID, 30, horizon=30),
    "MI-FGSM": mi_fgsm(LINF, 6, 0.03),
    "DI-FGSM": di_fgsm(EUCLID, 6, 0.3),
    "TI-BIM": ti_bim(LINF, 6, 0.03),
}
ATTACKS: dict[str, Any] = {
    **ITERATIVE,
    "Carlini-Wagner": CarliniWagner(L2(3.0), searches=3, iterations=30, lr=0.05),
    "projected Wasserstein": ProjectedWasserstein(EARTH, 5, 0.02),
    "Frank-Wolfe Wasserstein": FrankWolfeWasserstein(EARTH, 5),
    "AutoAttack": AutoAttack(Linf(0.03), classes=4, queries=5),
    "noise": Noise(LINF),
}
# AutoAttack is pyautoattack as it is, which shares random numbers out over the whole batch.
ONLY_WHOLE_BATCHES = {"AutoAttack"}
LONG = {"AutoAttack"}  # seconds each: all but one of its cases wait for the slow tests
STILL = {"noise"}  # it climbs nothing

# For each class one attack, and for each of its fields other values: all are told apart by `str`.
SETTINGS: list[tuple[Any, dict[str, list[Any]]]] = [
    (
        PGD(LINF, 6, 0.03),
        {"threat": [L2(0.1)], "steps": [7], "step_size": [0.02], "loss": [margin], "start": [from_x]},
    ),
    (APGD(LINF, 30), {"threat": [L2(0.1)], "steps": [31], "loss": [dlr], "start": [from_x], "lost": [never]}),
    (Square(LINF, 30), {"threat": [L2(0.1)], "steps": [31], "loss": [ce], "area": [0.3], "horizon": [30]}),
    (
        Momentum(LINF, 6, 0.03),
        {
            "threat": [L2(0.1)],
            "steps": [7],
            "step_size": [0.02],
            "decay": [0.5],
            "loss": [margin],
            "shown": [Diverse(), Diverse(0.7), Diverse(least=0.8)],
            "smooth": [Smoothed(), Smoothed(7), Smoothed(reach=2)],
        },
    ),
    (
        CarliniWagner(EUCLID),
        {
            "threat": [L2(0.2)],
            "searches": [2],
            "iterations": [7],
            "lr": [0.02],
            "weight": [0.5],
            "confidence": [1.0],
            "checks": [5],
        },
    ),
    (
        ProjectedWasserstein(EARTH, 5, 0.02),
        {"threat": [Wasserstein(0.1)], "steps": [6], "step_size": [0.2], "loss": [margin], "start": [at_random]},
    ),
    (
        FrankWolfeWasserstein(EARTH, 5),
        {"threat": [Wasserstein(0.1)], "steps": [6], "entropy": [0.2], "loss": [margin], "start": [at_random]},
    ),
    (AutoAttack(LINF, 10), {"threat": [L2(0.1)], "classes": [3], "version": ["rand"], "queries": [7]}),
    (Noise(LINF), {"threat": [Linf(0.2)]}),
]

EACH = pytest.mark.parametrize("name", ATTACKS)
QUICK = pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in ATTACKS])
STEPWISE = pytest.mark.parametrize("name", ITERATIVE)


class Linear(nn.Module):
    """Four logits, linear in the pixels once in eval mode; in train mode BatchNorm and dropout would tell."""

    def __init__(self, channels: int = 3, size: int = 6) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(channels), nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(channels)
        self.weight = nn.Parameter(torch.randn(4, channels, size, size, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        # Not a matrix product, whose rounding hangs on how many images there are.
        return (self.drop(self.norm(x))[:, None] * self.weight).flatten(2).sum(2) / 4


def images(count: int, channels: int = 3, size: int = 6) -> Tensor:
    return 0.2 + 0.6 * torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(count))


def problem(count: int, channels: int = 3) -> tuple[Linear, Tensor, Tensor, KeyedRNG]:
    f, x = Linear(channels).eval(), images(count, channels)
    return f, x, f(x).argmax(1), KeyedRNG(torch.arange(count) + 5, seed=2, purpose="contract")


@QUICK
@pytest.mark.parametrize(("count", "channels"), [(1, 1), (1, 3), (4, 1), (4, 3)])
def test_it_stays_inside_its_threat_model(name: str, count: int, channels: int) -> None:
    attack = ATTACKS[name]
    f, x, y, rng = problem(count, channels)
    before = x.clone()
    x_adv = attack(f, x, y, rng=rng)
    assert attack.threat.allows(x_adv, x).all()
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - STILL - LONG))
def test_it_raises_the_loss_of_a_linear_classifier(name: str) -> None:
    attack = ATTACKS[name]
    f, x, y, rng = problem(8)
    before, after = (margin(f(batch), y) for batch in (x, attack(f, x, y, rng=rng)))
    assert (after >= before).all()
    assert (after > before + 0.01).sum() >= 6


@QUICK
def test_it_is_a_function_of_the_draw(name: str) -> None:
    attack = ATTACKS[name]
    f, x, y, rng = problem(4)
    once = attack(f, x, y, rng=rng)
    torch.manual_seed(12345)
    assert torch.equal(attack(f, x, y, rng=rng), once)


@QUICK
def test_it_leaves_torchs_own_random_numbers_alone(name: str) -> None:
    f, x, y, rng = problem(2)
    before = torch.get_rng_state()
    ATTACKS[name](f, x, y, rng=rng)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - ONLY_WHOLE_BATCHES))
def test_an_images_result_does_not_depend_on_its_batch(name: str) -> None:
    attack = ATTACKS[name]
    f, x, y, rng = problem(5)
    whole = attack(f, x, y, rng=rng)
    for rows in ([4, 2, 0], [1]):
        part = torch.tensor(rows)
        got = attack(f, x[part], y[part], rng=rng.select(part))
        torch.testing.assert_close(got, whole[part], atol=1e-5, rtol=0)


@EACH
def test_the_classifier_is_left_as_it_was(name: str) -> None:
    """Buffers, modes, gradient flags and gradients; and it is attacked in eval mode, whatever mode it came in."""
    f, x, y, rng = problem(3)
    attack = ATTACKS[name]
    expected = attack(f, x, y, rng=rng)
    f.train()
    f.norm.eval()
    f.norm.weight.requires_grad = False
    f.weight.grad = torch.full_like(f.weight, 7.0)
    before = state_digest(f)
    assert torch.equal(attack(f, x, y, rng=rng), expected)
    assert state_digest(f) == before
    assert (f.weight.grad == 7).all()
    assert f.norm.bias.grad is None


@pytest.mark.parametrize(("attack", "changes"), SETTINGS, ids=[type(attack).__name__ for attack, _ in SETTINGS])
def test_every_setting_is_part_of_the_identity(attack: Any, changes: dict[str, list[Any]]) -> None:
    assert changes.keys() == {field.name for field in fields(attack)}
    others = [replace(attack, **{name: value}) for name, values in changes.items() for value in values]
    assert len({str(other) for other in [attack, *others]}) == len(others) + 1
    assert str(replace(attack)) == str(attack)
    assert all(" at 0x" not in str(other) for other in [attack, *others])


def test_no_two_attacks_share_an_identity() -> None:
    assert len({str(attack) for attack in ATTACKS.values()}) == len(ATTACKS)
    assert {type(attack) for attack, _ in SETTINGS} == {type(attack) for attack in ATTACKS.values()}


def test_identities_are_equal_in_every_process(python: Callable[..., str]) -> None:
    program = (
        "from forefend.attacks import auto_pgd, momentum, square; from forefend.threat_models.lp import Linf; t = Linf('8/255'); "
        "print(apgd.APGD(t, 101), square.Square(t, 5000), momentum.di_fgsm(t, 10, 0.01), sep=chr(10))"
    )
    threat = Linf("8/255")
    printed = python(program).splitlines()
    assert printed == [
        "APGD-101(Linf:8/255, loss=ce, start=to_the_edge, lost=misclassified)",
        "Square-5000(Linf:8/255, loss=margin, area=0.8, horizon=10000)",
        "Momentum-10(Linf:8/255, step=0.01, decay=0, loss=ce, shown=diverse 0.5 from 0.9, smooth=unfiltered)",
    ]
    assert printed == [str(APGD(threat, 101)), str(Square(threat, 5000)), str(di_fgsm(threat, 10, 0.01))]


@STEPWISE
def test_steps_are_how_often_the_classifier_is_asked(name: str) -> None:
    f, x, y, rng = problem(2)
    asked = []

    def counting(batch: Tensor) -> Tensor:
        asked.append(len(batch))
        return f(batch)

    ITERATIVE[name](counting, x, y, rng=rng)
    assert asked == [2] * ITERATIVE[name].steps


@STEPWISE
def test_images_may_lie_channels_last(name: str) -> None:
    f, x, y, rng = problem(4)
    plain = ITERATIVE[name](f, x, y, rng=rng)
    laid_out = ITERATIVE[name](f, x.to(memory_format=torch.channels_last), y, rng=rng)
    torch.testing.assert_close(laid_out, plain, atol=1e-5, rtol=0)


@STEPWISE
def test_rows_may_join_and_leave_a_batch_that_is_under_way(name: str) -> None:
    """Images at other steps and restarts share a batch, and each comes to the very image that it comes to alone."""
    attack = ITERATIVE[name]
    f, x, y, rng = problem(6)
    f, x = f.double(), x.double()
    restarts = torch.tensor([0, 0, 2, 0, 1, 0])
    rng = rng.fold_in(restart=restarts)
    expected = attack(f, x, y, rng=rng)
    joins = torch.tensor([0, 0, 0, 3, 1, 2])  # when each row begins, in rounds
    finished, rows, state = torch.zeros_like(x), torch.empty(0, dtype=torch.int64), None
    for when in range(int(joins.max()) + attack.steps):
        new = (joins == when).nonzero().squeeze(1)
        if len(new):
            rows, state = torch.cat([rows, new]), joined(state, attack.begin(x[new], rng.select(new)))
        at = at_step(rng.select(rows), attack, when - joins[rows])
        state = attack.advance(f, state or {}, x[rows], y[rows], rng=at)
        stay = when - joins[rows] + 1 < attack.steps
        finished[rows[~stay]] = attack.finish(chosen(state, ~stay))
        rows, state = rows[stay], chosen(state, stay)
    assert not len(rows)
    assert torch.equal(finished, expected)
    assert attack.threat.allows(finished, x).all()


def joined(state: State | None, new: State) -> State:
    return new if state is None else {name: torch.cat([state[name], new[name]]) for name in new}


def chosen(state: State, rows: Tensor) -> State:
    return {name: values[rows] for name, values in state.items()}


def test_the_table_is_of_attacks() -> None:
    attacks: list[Attack] = list(ATTACKS.values())
    assert all(callable(attack) for attack in attacks)
