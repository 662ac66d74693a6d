"""Each check on evidence made by hand, just inside its bound and just outside."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
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
from forefend.evaluation.access import Access, Surrogate, oblivious, through_bpda, white_box
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.gradient_masking import checks
from forefend.evaluation.gradient_masking.evidence import (
    WHITE_BOX,
    Evidence,
    RecordedAccuracy,
    averages,
    largest_count,
    sees_defense,
)
from forefend.evaluation.statistics import wilson
from forefend.evaluation.trial import Trial, with_copies
from forefend.threat_models.lp import Linf

FACTS = {
    "has_gradient": 1,
    "random": 0,
    "logits": 1,
    "optimizes": 0,
    "repeats": 1,
    "mixes": 0,
    "probed": 100,
    "zero": 0,
}
EACH = [*checks.GENERAL, *checks.WITH_ATTACKS, *checks.WITH_GRADIENTS]


def first(count: int) -> frozenset[int]:
    """The images 0 to count − 1."""
    return frozenset(range(count))


def evidence(broken: Mapping[str, frozenset[int]] | None = None, **more: Any) -> Evidence:
    """Evidence of 100 images and 10 classes that passes: 5 are misclassified, attacks break about 60."""
    honest = {name: first(60) for name in WHITE_BOX} | {"none": first(5), "FGSM": first(50)}
    honest |= {"noise": first(8), "Square": first(55), "bypassed": first(20), "BPDA": first(40)}
    honest |= {"AutoAttack": first(61)}
    settings: dict[str, Any] = {
        "images": first(100),
        "classes": 10,
        "norm": "Linf",
        "curve": {0.05: first(30), 0.1: first(60), 0.2: first(80), 0.5: first(95)},
        "recorded": None,
        "facts": FACTS,
        "landscape": {0.02: (1.0, 0.5), 0.1: (1.0, 0.55), 0.5: (0.95, 0.7)},
    }
    return Evidence(misclassified=honest | dict(broken or {}), **settings | more)


@pytest.mark.parametrize("check", EACH, ids=lambda check: check.__name__)
def test_check_of_honest_evidence_passes_with_full_text(check: checks.Check) -> None:
    found = check(evidence())
    without_records = (checks.recorded_attacks_see_the_defense, checks.recorded_accuracy_agrees)
    assert found.status == ("skipped" if check in without_records else "passed")
    assert all((found.check, found.measured, found.bound, found.advice))


def test_check_names_are_distinct() -> None:
    names = [check(evidence()).check for check in EACH]
    assert len(set(names)) == len(names) == 18


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
def test_largest_count_is_that_of_the_interval(n: int, share: float, count: int) -> None:
    assert largest_count(n, share) == count
    assert wilson(count, n)[0] <= share < wilson(count + 1, n)[0]


@given(st.integers(1, 300), st.sampled_from([0.02, 0.03, 0.05, 0.1]))
def test_largest_count_is_close_to_the_share(n: int, share: float) -> None:
    assert largest_count(n, share) >= int(share * n)
    assert largest_count(n, share) <= share * n + 2.5 * (n * share * (1 - share)) ** 0.5 + 4


# A check, the trial that it compares with the white box, and the largest count it allows.
ALONE = [
    (checks.noise_does_not_beat_attacks, "noise", 4),
    (checks.black_box_does_not_beat_white_box, "Square", 4),
    (checks.transfer_does_not_beat_white_box, "bypassed", 4),
    (checks.transfer_does_not_beat_white_box, "transfer from cnn", 4),
    (checks.bpda_does_not_beat_white_box, "BPDA", 4),
    (checks.stronger_attack_agrees, "AutoAttack", 6),
]


@pytest.mark.parametrize(("check", "name", "allowed"), ALONE)
def test_attack_beyond_white_box_is_bounded(check: checks.Check, name: str, allowed: int) -> None:
    for more, passed in ((allowed, True), (allowed + 1, False)):
        found = check(evidence({name: frozenset(range(60 - more, 60 + more))}))
        assert found.passed is passed
        assert f"{allowed} of 100" in found.bound
        if name != "AutoAttack":
            assert re.search(rf"\b{more}\.0 %", found.measured), found.measured


def test_misclassified_images_count_for_no_attack() -> None:
    """Without gradients there is no white-box trial."""
    lost = {"none": first(50), "Square": first(54), "noise": first(50), "bypassed": first(50), "BPDA": first(50)}
    blind = Evidence(first(100), 10, "Linf", lost, {}, None, FACTS | {"has_gradient": 0})
    assert checks.black_box_does_not_beat_white_box(blind).passed
    assert checks.noise_does_not_beat_attacks(blind).passed
    more = Evidence(first(100), 10, "Linf", lost | {"Square": first(55)}, {}, None, FACTS | {"has_gradient": 0})
    assert not checks.black_box_does_not_beat_white_box(more).passed


def test_attacks_not_run_are_reported() -> None:
    lost = dict.fromkeys((*WHITE_BOX, "none", "noise", "Square"), first(5))
    bare = Evidence(first(10), 10, "Linf", lost, {}, None, FACTS)
    for check in (checks.transfer_does_not_beat_white_box, checks.bpda_does_not_beat_white_box):
        assert check(bare).status == "skipped"
        assert check(bare).measured.startswith("not run: there is no defense")


@pytest.mark.parametrize(("ahead", "passed"), [(4, True), (5, False)])
def test_single_step_ahead_fails(ahead: int, passed: bool) -> None:
    found = checks.iterative_attacks_beat_a_single_step(evidence({"FGSM": first(40 + ahead), "PGD-20": first(40)}))
    assert found.passed is passed
    assert found.measured == f"accuracy {60 - ahead}.0 % under FGSM, 60.0 % under PGD-20"


@pytest.mark.parametrize(("more", "passed"), [(9, True), (10, False)])
def test_more_steps_break_few_more(more: int, passed: bool) -> None:
    lost = {"PGD-20": first(40), "PGD long": frozenset(range(10, 40 + more))}
    found = checks.more_steps_break_few_more(evidence(lost))
    assert found.passed is passed
    assert found.measured == f"accuracy 60.0 % under PGD-20; more steps and restarts break {more}.0 % more"


@pytest.mark.parametrize(("ahead", "passed"), [(18, True), (19, False)])
def test_counts_of_random_model_may_differ_by_chance(ahead: int, passed: bool) -> None:
    """4 of 100, and √(2 · 100) = 14 more: each of 100 outcomes has a variance of at most a quarter."""
    random = FACTS | {"random": 1}
    found = checks.iterative_attacks_beat_a_single_step(
        evidence({"FGSM": first(40 + ahead), "PGD-20": first(40)}, facts=random)
    )
    assert found.passed is passed
    assert "4 of 100" in found.bound
    assert "14 by chance" in found.bound
    curve = {0.1: first(40 + ahead), 0.2: first(40)}
    assert checks.accuracy_does_not_rise_with_the_radius(evidence(curve=curve, facts=random)).passed is passed


def test_random_breaks_of_two_attacks_cancel() -> None:
    """Two attacks break equally many images, partly different ones; 9 + 14 more are allowed."""
    random = FACTS | {"random": 1}
    for more, passed in ((0, True), (23, True), (24, False)):
        lost = {"PGD-20": first(40), "PGD long": frozenset(range(30, 70 + more))}
        assert checks.more_steps_break_few_more(evidence(lost, facts=random)).passed is passed
        assert not checks.more_steps_break_few_more(evidence(lost)).passed


@pytest.mark.parametrize(
    ("right", "classes", "passed"), [(15, 10, True), (16, 10, False), (59, 2, True), (60, 2, False)]
)
def test_accuracy_above_chance_at_largest_radius_fails(right: int, classes: int, passed: bool) -> None:
    curve = {0.1: first(0), 0.5: first(100 - right), 0.2: first(0)}
    found = checks.accuracy_falls_to_chance(evidence(curve=curve, classes=classes))
    assert found.passed is passed
    assert f"accuracy {right}.0 % under PGD-20 at Linf 0.5" in found.measured


@pytest.mark.parametrize(("rise", "passed"), [(0, True), (4, True), (5, False)])
def test_accuracy_that_rises_with_the_radius_fails(rise: int, passed: bool) -> None:
    found = checks.accuracy_does_not_rise_with_the_radius(
        evidence(curve={0.2: first(60 - rise), 0.5: first(99), 0.1: first(60)})
    )
    assert found.passed is passed
    assert found.measured == f"40.0 % at 0.1, {40 + rise}.0 % at 0.2, 1.0 % at 0.5"


@pytest.mark.parametrize(
    ("zero", "probed", "exists", "passed"),
    [(9, 100, 1, True), (10, 100, 1, False), (5, 50, 1, True), (6, 50, 1, False), (0, 100, 0, False)],
)
def test_zero_gradients_fail(zero: int, probed: int, exists: int, passed: bool) -> None:
    facts = FACTS | {"zero": zero, "probed": probed, "has_gradient": exists}
    if not exists:
        del facts["zero"]
    found = checks.gradients_are_not_zero(evidence(facts=facts))
    assert found.passed is passed
    assert f"{largest_count(probed, 0.05)} of {probed}" in found.bound


def test_missing_gradient_fails() -> None:
    found = checks.gradients_are_not_zero(evidence(facts={"has_gradient": 0, "probed": 3}))
    assert found.measured == "the output has no gradient"
    assert not found.passed


@pytest.mark.parametrize(
    ("landscape", "passed"),
    [
        ([(0.8, 0.5), (0.8, 0.7), (0.1, 0.9)], True),  # fails at the largest distance
        ([(0.1, 0.5), (0.8, 0.7), (0.8, 0.7)], True),  # fails at the smallest distance
        ([(0.79, 0.5), (0.8, 0.7), (0.1, 0.9)], False),
        ([(0.8, 0.8), (0.8, 0.7), (0.1, 0.9)], False),  # equal to a random step
        ([(0.0, 0.5)] * 3, False),
    ],
)
def test_loss_that_does_not_rise_fails(landscape: list[tuple[float, float]], passed: bool) -> None:
    found = checks.loss_rises_along_the_gradient(
        evidence(landscape=dict(zip((0.02, 0.1, 0.5), landscape, strict=True)))
    )
    assert found.passed is passed
    assert f"{100 * landscape[0][0]:.1f} % at 0.02 of the radius" in found.measured


def test_probabilities_and_optimization_inside_fail() -> None:
    assert not checks.output_is_logits(evidence(facts=FACTS | {"logits": 0})).passed
    assert not checks.no_optimization_inside(evidence(facts=FACTS | {"optimizes": 1})).passed


T = Linf(0.1)
PGD20 = PGD(T, 20, 0.01)
# Trials, whether their attack sees the gradient of the defense, and whether it averages.
TRIALS = [
    (Trial("", PGD20, T), True, False),
    (Trial("", PGD20, T, access=Access(), run=stop_at_success), True, False),
    (Trial("", APGD(T, 5), T, restarts=2), True, False),
    (Trial("", PGD20, T, access=Access(oblivious)), False, False),
    (Trial("", PGD20, T, access=Access(through_bpda)), True, False),
    (Trial("", PGD20, T, access=Access(eot_samples=8)), True, True),
    (Trial("", PGD20, T, access=Access(through_bpda, 20)), True, True),
    (Trial("", PGD20, T, access=Access(eot_samples=1)), False, False),  # an average over one sample
    (Trial("", PGD20, T, access=Access(oblivious, 8)), False, False),
    (Trial("", Square(T, 100), T), False, False),
    (Trial("", Square(T, 100), T, access=Access(eot_samples=8)), False, True),
    (Trial("", Noise(T), T), False, False),
    (Trial("", AutoAttack(T, 10), T), True, False),
    (Trial("", AutoAttack(T, 10, "rand"), T), True, True),
    (Trial("", AutoAttack(T, 10, "rand"), T, access=Access(oblivious)), False, False),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sees_defense_of_optimized_copies(precision: str) -> None:
    quick = [
        Trial("", PGD20, T, access=Access(view), run=stop_at_success) for view in (white_box, through_bpda, oblivious)
    ]
    averaged = Trial("", PGD20, T, access=Access(eot_samples=8), run=stop_at_success)
    swift = [str(trial) for trial in with_copies([*quick, averaged], precision)]
    assert all(f" in {precision}]" in identity for identity in swift)
    assert [sees_defense(identity) for identity in swift] == [True, True, False, True]
    assert [averages(identity) for identity in swift] == [False, False, False, True]
    assert not sees_defense(str(Trial("", PGD20, T, access=Access(Surrogate(nn.Identity(), "white_box in bf16")))))


@pytest.mark.parametrize(("trial", "seen", "averaged"), TRIALS, ids=lambda part: str(part))
def test_recorded_identity_tells_its_view(trial: Trial, seen: bool, averaged: bool) -> None:
    assert sees_defense(str(trial)) is seen
    assert averages(str(trial)) is averaged


OBLIVIOUS = [str(trial) for trial, seen, averaged in TRIALS if not (seen or averaged)]


def test_recorded_oblivious_attacks_alone_fail() -> None:
    found = checks.recorded_attacks_see_the_defense(evidence(recorded=RecordedAccuracy(OBLIVIOUS)))
    assert not found.passed
    assert found.measured == f"{len(OBLIVIOUS)} recorded attacks, none of them through the defense"
    assert checks.recorded_attacks_see_the_defense(
        evidence(recorded=RecordedAccuracy([*OBLIVIOUS, str(TRIALS[0][0])]))
    ).passed
    assert not checks.recorded_attacks_see_the_defense(evidence(recorded=RecordedAccuracy([]))).passed
    assert "no records were given" in checks.recorded_attacks_see_the_defense(evidence(recorded=None)).measured


def test_random_model_passes_with_recorded_eot() -> None:
    random = FACTS | {"random": 1}
    once, averaged = str(TRIALS[0][0]), str(TRIALS[5][0])
    assert checks.output_is_deterministic_or_averaged(
        evidence(facts=random, recorded=RecordedAccuracy([once, averaged]))
    ).passed
    assert checks.output_is_deterministic_or_averaged(evidence(facts=random, recorded=None)).status == "skipped"
    found = checks.output_is_deterministic_or_averaged(evidence(facts=random, recorded=RecordedAccuracy([once])))
    assert not found.passed
    assert found.measured == "random, and the records hold no attack through EOT"
    assert checks.output_is_deterministic_or_averaged(evidence(recorded=RecordedAccuracy([once]))).passed


@pytest.mark.parametrize(("more", "passed"), [(5, True), (6, False)])
def test_recorded_accuracy_broken_by_attacks_fails(more: int, passed: bool) -> None:
    """50 of the images are recorded, 20 of them robust; every attack counts."""
    attacked = frozenset(range(50, 150))
    recorded = RecordedAccuracy((), attacked, frozenset(range(80, 130)))
    lost = {"BPDA": frozenset(range(80, 82)), "AutoAttack": frozenset(range(82, 80 + more))}
    found = checks.recorded_accuracy_agrees(evidence(lost, recorded=recorded))
    assert found.passed is passed
    assert found.measured == (
        f"on 50 recorded images, accuracy 40.0 % in the records, {40 - 2 * more}.0 % after these attacks"
    )
    assert "5 of 50" in found.bound
    random = checks.recorded_accuracy_agrees(evidence(lost, recorded=recorded, facts=FACTS | {"random": 1}))
    assert (random.status, random.measured) == ("skipped", "not compared: the output is random")


@pytest.mark.parametrize(
    "recorded", [None, RecordedAccuracy(()), RecordedAccuracy((), frozenset({200}), frozenset({200}))]
)
def test_recorded_accuracy_without_images_is_skipped(recorded: RecordedAccuracy | None) -> None:
    found = checks.recorded_accuracy_agrees(evidence(recorded=recorded))
    assert (found.status, found.measured) == ("skipped", "not compared: the records hold none of these images")


def test_records_without_answers_are_told() -> None:
    old = evidence(recorded=RecordedAccuracy((), unidentified=12))
    assert "12 older verdicts do not say" in checks.recorded_accuracy_agrees(old).measured
    assert checks.recorded_attacks_see_the_defense(old).status == "skipped"


def test_fast_in_place_of_autoattack_is_told() -> None:
    without = {name: found for name, found in evidence().misclassified.items() if name != "AutoAttack"}
    for more, passed in ((6, True), (7, False)):
        lost = without | {"fast": frozenset(range(60 - more, 60 + more))}
        found = checks.stronger_attack_agrees(replace(evidence(), misclassified=lost))
        assert found.passed is passed
        assert found.measured.endswith("after fast; a number to publish needs AutoAttack, the suite standard")


def test_autoattack_warnings_are_reported() -> None:
    found = checks.stronger_attack_agrees(evidence(warnings=("zero gradient.", "Square helped.")))
    assert found.measured.endswith("39.0 % after AutoAttack; its warnings: zero gradient. Square helped.")
    assert found.passed
