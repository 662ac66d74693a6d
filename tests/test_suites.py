from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from forefend import suites
from forefend.attacks.pgd import PGD, fgsm, from_x, random_start
from forefend.defence import Defended
from forefend.suites import Suite, Trial
from forefend.threat import L2, Linf, ThreatModel

THREATS: list[ThreatModel] = [Linf("2/255"), Linf("4/255"), Linf("8/255"), L2(0.5)]


def every_suite() -> dict[str, Suite]:
    return {
        "quick": [trial for threat in THREATS for trial in suites.quick(threat)],
        "curve": suites.curve(THREATS),
        "curve 50": suites.curve(THREATS, steps=50),
        "rtfe": suites.rtfe(THREATS),
    }


@pytest.mark.parametrize("name", every_suite())
def test_identities_are_distinct_within_a_suite_and_hold_no_address(name: str) -> None:
    trials = every_suite()[name]
    identities = [str(trial) for trial in trials]
    assert len(set(identities)) == len(trials)
    for trial, identity in zip(trials, identities, strict=True):
        assert " at 0x" not in identity
        assert str(trial.threat) in identity
        assert "[white_box]" in identity


def test_identities_are_the_same_in_another_process(python: Callable[..., str]) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}; import test_suites as t\n"
    other = python(program + "for s in t.every_suite().values():\n for trial in s:\n  print(trial)")
    assert other.splitlines() == [str(trial) for suite in every_suite().values() for trial in suite]


def test_whatever_a_trial_differs_in_its_identity_differs() -> None:
    threat = Linf(0.1)
    trials = [
        Trial("a", PGD(threat, 20, 0.01), threat),
        Trial("a", PGD(threat, 20, 0.01), threat, restarts=2),
        Trial("a", PGD(threat, 20, 0.01), threat, sees=suites.oblivious),
        Trial("a", PGD(threat, 20, 0.02), threat),
        Trial("a", PGD(threat, 10, 0.01), threat),
        Trial("a", PGD(threat, 20, 0.01, start=from_x), threat),
        Trial("a", PGD(L2(0.1), 20, 0.01), L2(0.1)),
    ]
    assert len({str(trial) for trial in trials}) == len(trials)


def test_the_papers_three_readings_have_their_step_sizes_at_every_radius() -> None:
    trials = suites.rtfe(THREATS[:3])
    assert [trial.name for trial in trials[:3]] == ["RTFE step 1.25ε", "RTFE step 1.25ε/20", "RTFE step 1.25ε/100"]
    pixels = [255 * trial.attack.step_size for trial in trials]
    assert pixels == pytest.approx([2.5, 0.125, 0.025, 5, 0.25, 0.05, 10, 0.5, 0.1])
    assert {(trial.attack.steps, trial.restarts, trial.attack.start) for trial in trials} == {(20, 1, random_start)}
    assert all(trial.attack.threat == trial.threat for trial in trials)


def test_what_a_suite_costs_is_known_beforehand() -> None:
    assert [trial.gradients() for trial in suites.quick(Linf(0.1))] == [1, 40, 40]
    assert sum(trial.gradients() for trial in suites.curve(THREATS)) == 4 * 40
    assert Trial("it", lambda *_, **__: torch.empty(0), Linf(0.1)).gradients() == 1


def test_quick_steps_are_two_and_a_half_radii_long_in_all() -> None:
    first, ce, margin = suites.quick(Linf(0.1))
    assert first.attack == fgsm(Linf(0.1))
    for trial in (ce, margin):
        assert trial.attack.steps * trial.attack.step_size == pytest.approx(0.25)
    assert ce.attack.loss is not margin.attack.loss


def test_what_the_attacker_sees_is_the_function_that_is_handed_in() -> None:
    bare, guarded = nn.Flatten(), Defended(nn.Identity(), nn.Flatten())
    assert suites.white_box(guarded) is guarded
    assert suites.oblivious(guarded) is guarded.classifier
    assert suites.oblivious(bare) is suites.white_box(bare) is bare
