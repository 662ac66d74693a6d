"""The bench's early exit: two kinds of peers with restarts, each for what it is, and the bar over the better kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.speed.benchmarks import early_stopping
from benchmarks.speed.cases import TARGETS, read
from benchmarks.speed.results import Outcome, Point

ROOT = Path(__file__).parents[2]

from benchmarks.peers import peers
from benchmarks.speed import crafts


def test_with_restarts_both_kinds_of_peers_are_asked() -> None:
    asked: dict[str, set[str]] = {}
    for point in early_stopping.points(quick=False):
        asked.setdefault(point.case, set()).add(point.subject)
    several = {case: subjects for case, subjects in asked.items() if read(case).restarts > 1}
    assert sum(set(early_stopping.NATIVE) < subjects for subjects in several.values()) == 2
    assert all(subjects & set(early_stopping.PEERS) for subjects in asked.values())
    assert not any(subjects & set(early_stopping.NATIVE) for case, subjects in asked.items() if case not in several)


def test_who_attacks_every_image_every_time_has_no_bar_and_takes_none_from_the_best() -> None:
    def outcome(seconds: float) -> list[Outcome]:
        return [{"seconds": seconds, "lost": "01", "robust": 0.5, "gradients": seconds}] * 3

    seconds = {
        early_stopping.OURS: 1.0,
        "adv-lib": 7.0,
        "torchattacks": 9.0,
        early_stopping.FOOLBOX: 2.0,
        early_stopping.ART: 30.0,
    }
    case = "PGD-100 x 5 on resnet20, 8 images"
    measured = {Point(early_stopping.NAME, case, name): outcome(taken) for name, taken in seconds.items()}
    found = {figure.against: figure for figure in early_stopping.figures(measured)}
    assert {name: figure.bar for name, figure in found.items() if figure.bar} == {"adv-lib": 8}
    assert found["adv-lib"].missed
    assert found[early_stopping.ART].ratio == 30


# foolbox imports from a part of scipy that is going away.
@pytest.mark.filterwarnings("ignore:Please import `:DeprecationWarning")
def test_foolbox_s_own_restarts_attack_every_image_every_time(
    small_target: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "random weights", replace(TARGETS["random weights"], radius="80/255"))
    ((key, maker),) = crafts.every_restart(early_stopping.FOOLBOX, peers.foolbox).items()
    assert key == (early_stopping.NAME, early_stopping.FOOLBOX)
    once, thrice = (maker(f"PGD-4{times} on random weights, 6 images")() for times in ("", " x 3"))
    assert (once["gradients"], thrice["gradients"]) == (4, 12)
    assert thrice["lost"].count("1") >= once["lost"].count("1") > 0
    assert thrice["excess"] <= 1e-6
