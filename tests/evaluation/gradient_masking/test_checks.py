"""Findings: each check on evidence made by hand, just inside its bound and just outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forefend.attacks.auto_pgd import APGD
from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.noise import Noise
from forefend.attacks.pgd import PGD
from forefend.attacks.square import Square
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.fast_trials import swiftly
from forefend.evaluation.gradient_masking import checks
from forefend.evaluation.gradient_masking.evidence import WHITE, Evidence, Number, averages, most, sees_defense
from forefend.evaluation.statistics import wilson
from forefend.evaluation.trial import Averaged, Surrogate, Trial, oblivious, through_bpda, white_box
from forefend.threat_models.lp import Linf

FACTS = {"flows": 1, "random": 0, "logits": 1, "optimizes": 0, "probed": 100, "zero": 0}
EACH = [*checks.OF_ANY, *checks.OF_ATTACKED, *checks.OF_DIFFERENTIABLE]


def first(count: int) -> frozenset[int]:
    """The images 0 to count − 1."""
    return frozenset(range(count))


def evidence(lost: Mapping[str, frozenset[int]] | None = None, **more: Any) -> Evidence:
    """Of 100 images of 10 classes: 5 are misclassified, every attack breaks 60 or nearly so, and nothing is amiss."""
    honest = {name: first(60) for name in WHITE} | {"none": first(5), "FGSM": first(50)}
    honest |= {"noise": first(8), "Square": first(55), "bypassed": first(20), "BPDA": first(40)}
    honest |= {"AutoAttack": first(61)}
    settings: dict[str, Any] = {
        "images": first(100),
        "classes": 10,
        "norm": "Linf",
        "curve": {0.05: first(30), 0.1: first(60), 0.2: first(80), 0.5: first(95)},
        "number": None,
        "facts": FACTS,
        "landscape": {0.02: (1.0, 0.5), 0.1: (1.0, 0.55), 0.5: (0.95, 0.7)},
    }
    return Evidence(lost=honest | dict(lost or {}), **settings | more)


@pytest.mark.parametrize("look", EACH, ids=lambda look: look.__name__)
def test_honest_evidence_passes_and_every_finding_says_what_why_and_what_to_do(look: checks.Check) -> None:
    found = look(evidence())
    assert found.passed
    assert all((found.check, found.measured, found.bound, found.advice))


def test_every_check_has_a_name_of_its_own() -> None:
    names = [look(evidence()).check for look in EACH]
    assert len(set(names)) == len(names) == 16


@pytest.mark.parametrize(
    ("n", "share", "count"),
    [
        (10, 0.02, 1),  # wilson(1, 10) begins at 0.018, wilson(2, 10) at 0.057
        (50, 0.02, 2),
        (100, 0.02, 4),
        (200, 0.02, 7),
        (1000, 0.02, 28),
        (100, 0.03, 6),
        (100, 0.05, 9),
        (100, 0.1, 15),
        (1, 0.02, 0),
    ],
)
def test_the_allowance_for_few_images(n: int, share: float, count: int) -> None:
    assert most(n, share) == count
    assert wilson(count, n)[0] <= share < wilson(count + 1, n)[0]


@given(st.integers(1, 300), st.sampled_from([0.02, 0.03, 0.05, 0.1]))
def test_a_share_below_the_bound_always_passes_and_one_far_above_never(n: int, share: float) -> None:
    assert most(n, share) >= int(share * n)
    assert most(n, share) <= share * n + 2.5 * (n * share * (1 - share)) ** 0.5 + 4


# Which check looks at a set of images, how many more it allows, and how many images were its before.
ALONE = [
    (checks.noise_hurts_less, "noise", 4),
    (checks.black_box_does_no_better, "Square", 4),
    (checks.transfer_does_no_better, "bypassed", 4),
    (checks.transfer_does_no_better, "transfer from cnn", 4),
    (checks.bpda_does_no_better, "BPDA", 4),
    (checks.autoattack_agrees, "AutoAttack", 6),
]


@pytest.mark.parametrize(("look", "name", "allowed"), ALONE)
def test_what_an_attack_breaks_that_no_white_box_one_broke(look: checks.Check, name: str, allowed: int) -> None:
    for more, passed in ((allowed, True), (allowed + 1, False)):
        found = look(evidence({name: frozenset(range(60 - more, 60 + more))}))
        assert found.passed is passed
        assert f"{allowed} of 100" in found.bound
        if name != "AutoAttack":
            assert re.search(rf"\b{more}\.0 %", found.measured), found.measured


def test_misclassified_images_are_nobody_s_merit() -> None:
    """Where no gradient can be followed, there is no white-box trial that would hold them."""
    lost = {"none": first(50), "Square": first(54), "noise": first(50), "bypassed": first(50), "BPDA": first(50)}
    blind = Evidence(first(100), 10, "Linf", lost, {}, None, FACTS | {"flows": 0})
    assert checks.black_box_does_no_better(blind).passed
    assert checks.noise_hurts_less(blind).passed
    more = Evidence(first(100), 10, "Linf", lost | {"Square": first(55)}, {}, None, FACTS | {"flows": 0})
    assert not checks.black_box_does_no_better(more).passed


def test_what_was_not_tried_is_said() -> None:
    lost = dict.fromkeys((*WHITE, "none", "noise", "Square"), first(5))
    bare = Evidence(first(10), 10, "Linf", lost, {}, None, FACTS)
    for look in (checks.transfer_does_no_better, checks.bpda_does_no_better):
        assert look(bare).passed
        assert look(bare).measured.startswith("not tried: there is no defense")


@pytest.mark.parametrize(("ahead", "passed"), [(4, True), (5, False)])
def test_a_single_step_may_not_be_ahead(ahead: int, passed: bool) -> None:
    found = checks.iterative_beats_single_step(evidence({"FGSM": first(40 + ahead), "PGD-20": first(40)}))
    assert found.passed is passed
    assert found.measured == f"FGSM leaves {60 - ahead}.0 %, PGD-20 60.0 %"


@pytest.mark.parametrize(("more", "passed"), [(9, True), (10, False)])
def test_more_steps_hardly_help(more: int, passed: bool) -> None:
    lost = {"PGD-20": first(40), "PGD long": frozenset(range(10, 40 + more))}
    found = checks.more_steps_hardly_help(evidence(lost))
    assert found.passed is passed
    assert found.measured == f"PGD-20 leaves 60.0 %, more steps and restarts break {more}.0 % more"


@pytest.mark.parametrize(("ahead", "passed"), [(18, True), (19, False)])
def test_two_counts_of_a_random_pipeline_may_differ_by_luck(ahead: int, passed: bool) -> None:
    """4 of 100 as ever, and √(2 · 100) = 14: each of 100 verdicts has a variance of a quarter at most."""
    random = FACTS | {"random": 1}
    found = checks.iterative_beats_single_step(evidence({"FGSM": first(40 + ahead), "PGD-20": first(40)}, facts=random))
    assert found.passed is passed
    assert "4 of 100" in found.bound
    assert "14 that luck may make" in found.bound
    curve = {0.1: first(40 + ahead), 0.2: first(40)}
    assert checks.larger_radius_hurts_more(evidence(curve=curve, facts=random)).passed is passed


def test_what_two_attacks_break_by_luck_cancels_out() -> None:
    """Of two attacks that break as many, each breaks some that the other did not; 9 and 14 more are allowed."""
    random = FACTS | {"random": 1}
    for more, passed in ((0, True), (23, True), (24, False)):
        lost = {"PGD-20": first(40), "PGD long": frozenset(range(30, 70 + more))}
        assert checks.more_steps_hardly_help(evidence(lost, facts=random)).passed is passed
        assert not checks.more_steps_hardly_help(evidence(lost)).passed


@pytest.mark.parametrize(
    ("right", "classes", "passed"), [(15, 10, True), (16, 10, False), (59, 2, True), (60, 2, False)]
)
def test_accuracy_falls_to_chance_at_the_largest_radius(right: int, classes: int, passed: bool) -> None:
    curve = {0.1: first(0), 0.5: first(100 - right), 0.2: first(0)}
    found = checks.falls_to_chance(evidence(curve=curve, classes=classes))
    assert found.passed is passed
    assert f"PGD-20 leaves {right}.0 % at Linf 0.5" in found.measured


@pytest.mark.parametrize(("rise", "passed"), [(0, True), (4, True), (5, False)])
def test_a_larger_radius_does_not_help(rise: int, passed: bool) -> None:
    found = checks.larger_radius_hurts_more(evidence(curve={0.2: first(60 - rise), 0.5: first(99), 0.1: first(60)}))
    assert found.passed is passed
    assert found.measured == f"40.0 % at 0.1, {40 + rise}.0 % at 0.2, 1.0 % at 0.5"


@pytest.mark.parametrize(
    ("zero", "probed", "flows", "passed"),
    [(9, 100, 1, True), (10, 100, 1, False), (5, 50, 1, True), (6, 50, 1, False), (0, 100, 0, False)],
)
def test_gradients_are_there(zero: int, probed: int, flows: int, passed: bool) -> None:
    facts = FACTS | {"zero": zero, "probed": probed, "flows": flows}
    if not flows:
        del facts["zero"]
    found = checks.gradients_are_there(evidence(facts=facts))
    assert found.passed is passed
    assert f"{most(probed, 0.05)} of {probed}" in found.bound


def test_where_nothing_flows_it_is_said() -> None:
    found = checks.gradients_are_there(evidence(facts={"flows": 0, "probed": 3}))
    assert found.measured == "the output hangs on no gradient of the image"
    assert not found.passed


@pytest.mark.parametrize(
    ("landscape", "passed"),
    [
        ([(0.8, 0.5), (0.8, 0.7), (0.1, 0.9)], True),  # rough far away
        ([(0.1, 0.5), (0.8, 0.7), (0.8, 0.7)], True),  # rounded
        ([(0.79, 0.5), (0.8, 0.7), (0.1, 0.9)], False),
        ([(0.8, 0.8), (0.8, 0.7), (0.1, 0.9)], False),  # no better than a random step
        ([(0.0, 0.5)] * 3, False),
    ],
)
def test_the_loss_rises_along_the_gradient(landscape: list[tuple[float, float]], passed: bool) -> None:
    found = checks.the_loss_rises_along_the_gradient(
        evidence(landscape=dict(zip((0.02, 0.1, 0.5), landscape, strict=True)))
    )
    assert found.passed is passed
    assert f"{100 * landscape[0][0]:.1f} % at 0.02 of the radius" in found.measured


def test_probabilities_and_optimization_inside_fail() -> None:
    assert not checks.answers_are_logits(evidence(facts=FACTS | {"logits": 0})).passed
    assert not checks.nothing_is_optimized_inside(evidence(facts=FACTS | {"optimizes": 1})).passed


T = Linf(0.1)
PGD20 = PGD(T, 20, 0.01)
# Identities as records hold them: whether the attack sees the defense's gradient, and whether it averages.
TRIALS = [
    (Trial("", PGD20, T), True, False),
    (Trial("", PGD20, T, sees=white_box, run=stop_at_success), True, False),
    (Trial("", APGD(T, 5), T, restarts=2), True, False),
    (Trial("", PGD20, T, sees=oblivious), False, False),
    (Trial("", PGD20, T, sees=through_bpda), True, False),
    (Trial("", PGD20, T, sees=Averaged(8)), True, True),
    (Trial("", PGD20, T, sees=Averaged(20, through_bpda)), True, True),
    (Trial("", PGD20, T, sees=Averaged(1)), False, False),  # an average of one is none
    (Trial("", PGD20, T, sees=Averaged(8, oblivious)), False, False),
    (Trial("", Square(T, 100), T), False, False),
    (Trial("", Square(T, 100), T, sees=Averaged(8)), False, True),
    (Trial("", Noise(T), T), False, False),
    (Trial("", AutoAttack(T, 10), T), True, False),
    (Trial("", AutoAttack(T, 10, "rand"), T), True, True),
    (Trial("", AutoAttack(T, 10, "rand"), T, sees=oblivious), False, False),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_attack_that_computes_with_a_prepared_copy_sees_what_it_was_copied_from(precision: str) -> None:
    quick = [Trial("", PGD20, T, sees=sees, run=stop_at_success) for sees in (white_box, through_bpda, oblivious)]
    averaged = Trial("", PGD20, T, sees=Averaged(8), run=stop_at_success)
    swift = [str(trial) for trial in swiftly([*quick, averaged], precision)]
    assert all(f" in {precision}]" in identity for identity in swift)
    assert [sees_defense(identity) for identity in swift] == [True, True, False, True]
    assert [averages(identity) for identity in swift] == [False, False, False, True]
    assert not sees_defense(str(Trial("", PGD20, T, sees=Surrogate(nn.Identity(), "white_box in bf16"))))


@pytest.mark.parametrize(("trial", "seen", "averaged"), TRIALS, ids=lambda part: str(part))
def test_what_records_say_of_an_attack(trial: Trial, seen: bool, averaged: bool) -> None:
    assert sees_defense(str(trial)) is seen
    assert averages(str(trial)) is averaged


OBLIVIOUS = [str(trial) for trial, seen, averaged in TRIALS if not (seen or averaged)]


def test_a_number_from_oblivious_attacks_alone_is_not_to_be_trusted() -> None:
    found = checks.records_hold_a_white_box(evidence(number=Number(OBLIVIOUS)))
    assert not found.passed
    assert found.measured == f"{len(OBLIVIOUS)} attacks on record, none of them by the defense's gradients"
    assert checks.records_hold_a_white_box(evidence(number=Number([*OBLIVIOUS, str(TRIALS[0][0])]))).passed
    assert not checks.records_hold_a_white_box(evidence(number=Number([]))).passed
    assert "no number on record" in checks.records_hold_a_white_box(evidence(number=None)).measured


def test_a_random_pipeline_is_allowed_if_it_was_attacked_through_its_expectation() -> None:
    random = FACTS | {"random": 1}
    once, averaged = str(TRIALS[0][0]), str(TRIALS[5][0])
    assert checks.answers_are_repeatable(evidence(facts=random, number=Number([once, averaged]))).passed
    assert checks.answers_are_repeatable(evidence(facts=random, number=None)).passed  # the gate itself averages
    found = checks.answers_are_repeatable(evidence(facts=random, number=Number([once])))
    assert not found.passed
    assert found.measured == "random, and its records hold no attack through EOT"
    assert checks.answers_are_repeatable(evidence(number=Number([once]))).passed


@pytest.mark.parametrize(("more", "passed"), [(5, True), (6, False)])
def test_the_number_on_record_stands_up_to_every_attack_of_the_gate(more: int, passed: bool) -> None:
    """50 of the gate's images were judged on record, and of them 20 stand; any attack's success counts."""
    judged = frozenset(range(50, 150))
    number = Number((), judged, frozenset(range(80, 130)))
    lost = {"BPDA": frozenset(range(80, 82)), "AutoAttack": frozenset(range(82, 80 + more))}
    found = checks.the_number_stands(evidence(lost, number=number))
    assert found.passed is passed
    assert found.measured == (
        f"of 50 images judged by both, the records leave 40.0 %, the gate's attacks beside them {40 - 2 * more}.0 %"
    )
    assert "5 of 50" in found.bound
    random = checks.the_number_stands(evidence(lost, number=number, facts=FACTS | {"random": 1}))
    assert (random.passed, random.measured) == (True, "not compared: answers are random")


@pytest.mark.parametrize("number", [None, Number(()), Number((), frozenset({200}), frozenset({200}))])
def test_where_nothing_can_be_compared_it_is_said(number: Number | None) -> None:
    found = checks.the_number_stands(evidence(number=number))
    assert (found.passed, found.measured) == (True, "not compared: no image here was judged on record")


def test_what_autoattack_s_own_checks_say_is_told() -> None:
    found = checks.autoattack_agrees(evidence(flagged=("zero gradient.", "Square helped.")))
    assert found.measured.endswith("AutoAttack after it 39.0 %; it says: zero gradient. Square helped.")
    assert found.passed
