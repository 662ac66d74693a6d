"""The benchmark of early stopping: baselines with two kinds of restarts, and the target over the faster kind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.peers import baselines
from benchmarks.speed import baseline_worker
from benchmarks.speed.benchmarks import early_stopping
from benchmarks.speed.cases import MODELS, parse_case
from benchmarks.speed.results import Outcome, Point


def test_points_with_restarts_have_both_kinds_of_baselines() -> None:
    found: dict[str, set[str]] = {}
    for point in early_stopping.points(quick=False):
        found.setdefault(point.case, set()).add(point.implementation)
    several = {case: names for case, names in found.items() if parse_case(case).restarts > 1}
    assert sum(set(early_stopping.EVERY_RESTART) < names for names in several.values()) == 2
    assert all(names & set(early_stopping.BASELINES) for names in found.values())
    assert not any(names & set(early_stopping.EVERY_RESTART) for case, names in found.items() if case not in several)


def test_figures_every_restart_baselines_have_no_target() -> None:
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
    assert {name: figure.target for name, figure in found.items() if figure.target} == {"adv-lib": 8}
    assert found["adv-lib"].missed
    assert found[early_stopping.ART].ratio == 30


# foolbox imports from a deprecated module of scipy.
@pytest.mark.filterwarnings("ignore:Please import `:DeprecationWarning")
def test_foolbox_restarts_attack_every_image_every_time(small_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "random weights", replace(MODELS["random weights"], radius="80/255"))
    ((key, setup),) = baseline_worker.every_restart(early_stopping.FOOLBOX, baselines.foolbox).items()
    assert key == (early_stopping.NAME, early_stopping.FOOLBOX)
    once, thrice = (setup(f"PGD-4{times} on random weights, 6 images")() for times in ("", " x 3"))
    assert (once["gradients"], thrice["gradients"]) == (4, 12)
    assert thrice["lost"].count("1") >= once["lost"].count("1") > 0
    assert thrice["excess"] <= 1e-6
