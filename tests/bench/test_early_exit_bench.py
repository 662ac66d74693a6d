"""The bench's early exit: two kinds of peers with restarts, each for what it is, and the bar over the better kind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from forefend.bench import early_exit
from forefend.ratios import Outcome, Point
from forefend.targets import TARGETS, read

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the package

from benchmarks.peers import peers  # noqa: E402
from benchmarks.speed import crafts  # noqa: E402


def test_with_restarts_both_kinds_of_peers_are_asked() -> None:
    asked: dict[str, set[str]] = {}
    for point in early_exit.points(quick=False):
        asked.setdefault(point.case, set()).add(point.subject)
    several = {case: subjects for case, subjects in asked.items() if read(case).restarts > 1}
    assert sum(set(early_exit.NATIVE) < subjects for subjects in several.values()) == 2
    assert all(subjects & set(early_exit.PEERS) for subjects in asked.values())
    assert not any(subjects & set(early_exit.NATIVE) for case, subjects in asked.items() if case not in several)


def test_who_attacks_every_image_every_time_has_no_bar_and_takes_none_from_the_best() -> None:
    def outcome(seconds: float) -> list[Outcome]:
        return [{"seconds": seconds, "lost": "01", "robust": 0.5, "gradients": seconds}] * 3

    seconds = {early_exit.OURS: 1.0, "adv-lib": 7.0, "torchattacks": 9.0, early_exit.FOOLBOX: 2.0, early_exit.ART: 30.0}
    case = "PGD-100 x 5 on resnet20, 8 images"
    measured = {Point(early_exit.NAME, case, name): outcome(taken) for name, taken in seconds.items()}
    found = {figure.against: figure for figure in early_exit.figures(measured)}
    assert {name: figure.bar for name, figure in found.items() if figure.bar} == {"adv-lib": 8}
    assert found["adv-lib"].missed
    assert found[early_exit.ART].ratio == 30


# foolbox imports from a part of scipy that is going away.
@pytest.mark.filterwarnings("ignore:Please import `:DeprecationWarning")
def test_foolbox_s_own_restarts_attack_every_image_every_time(
    small_target: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "random weights", replace(TARGETS["random weights"], radius="80/255"))
    ((key, maker),) = crafts.every_restart(early_exit.FOOLBOX, peers.foolbox).items()
    assert key == (early_exit.NAME, early_exit.FOOLBOX)
    once, thrice = (maker(f"PGD-4{times} on random weights, 6 images")() for times in ("", " x 3"))
    assert (once["gradients"], thrice["gradients"]) == (4, 12)
    assert thrice["lost"].count("1") >= once["lost"].count("1") > 0
    assert thrice["excess"] <= 1e-6
