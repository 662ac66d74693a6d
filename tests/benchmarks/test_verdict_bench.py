"""The bench's verdicts: passes are counted in copies too, and AutoAttack alone is the cascade's last stage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.speed import cases
from benchmarks.speed.benchmarks import cascade
from benchmarks.speed.results import Outcome, Point
from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.evaluation.attack_runner import run_all_steps, stop_at_success
from forefend.evaluation.fast_trials import Swift
from forefend.evaluation.trial import Cascade, Trial
from forefend.models.optimized_copy import optimized_copy
from forefend.threat_models.lp import Linf


@pytest.mark.parametrize("trying", [*cascade.FULL, *cascade.QUICK], ids=str)
def test_a_case_is_read_as_it_was_written(trying: cascade.Trying) -> None:
    assert cascade.read(str(trying)) == trying


@pytest.mark.parametrize(
    "case", ["", "PGD-20 on resnet20", "AutoAttack on vgg at 1/255, 3 images", "AutoAttack on resnet20 at 1/255"]
)
def test_what_is_no_case_is_refused(case: str) -> None:
    with pytest.raises(InputError):
        cascade.read(case)


def short(threat: Linf) -> tuple[Trial, Trial]:
    """Two steps, then four on what is left; and the four alone."""
    cheap = Trial("cheap", PGD(threat, 2, threat.radius / 2), threat, sees=Swift(), run=stop_at_success)
    alone = Trial("last", PGD(threat, 4, threat.radius / 2), threat)
    return Trial("chain", alone.attack, threat, run=Cascade((cheap,))), alone


@pytest.mark.parametrize(("radius", "gradients", "lost"), [("0.001/255", (6, 4), "0000"), ("200/255", (2, 4), "1111")])
def test_gradients_are_counted_in_the_network_and_in_its_copies(
    radius: str, gradients: tuple[int, int], lost: str, small_target: None
) -> None:
    case = f"AutoAttack on random weights at {radius}, 4 images"
    found = [cascade.work(trial, case)() for trial in short(cascade.read(case).threat)]
    assert [one["lost"] for one in found] == [lost, lost]
    assert tuple(one["gradients"] for one in found) == gradients
    assert all(one["forwards"] > one["gradients"] and one["images"] == 4 for one in found)
    assert found[0]["robust"] == lost.count("0") / 4


def test_a_clean_mistake_is_lost_and_costs_nothing(small_target: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = "AutoAttack on random weights at 0.001/255, 4 images"
    x, y, index = cases.TARGETS["random weights"].images(4)
    monkeypatch.setattr(
        type(cases.TARGETS["random weights"]), "images", lambda self, n: (x, torch.where(index == 2, 9 - y, y), index)
    )
    found = cascade.work(short(Linf("0.001/255"))[1], case)()
    assert found["lost"] == "0010"
    assert found["gradients"] == 3 * 4 / 4


def test_other_networks_are_not_counted() -> None:
    mine, other, x = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), torch.rand(3, 1, 2, 2, requires_grad=True)
    copy = optimized_copy(mine.eval(), x.detach())
    with cascade.asked(mine) as passes:
        for network in (mine, copy, other):
            torch.autograd.grad(network(x).sum(), x)
    mine(x)
    assert passes == {"forwards": 6, "gradients": 6}


def test_alone_is_the_cascade_s_last_stage() -> None:
    pytest.importorskip("pyautoattack", reason="the extra eval is not installed")
    chain, alone = cascade.chain(Linf(0.1)), cascade.alone(Linf(0.1))
    assert alone.run is run_all_steps
    assert (alone.attack, alone.threat, alone.sees) == (chain.attack, chain.threat, chain.sees)
    assert str(chain).startswith(f"{alone} after ")


def test_the_bar_is_ten_gradients_for_one_and_robust_images_miss_it() -> None:
    def outcome(gradients: float, lost: str) -> list[Outcome]:
        robust = lost.count("0") / len(lost)
        told = {"seconds": 1 + gradients, "forwards": 2 * gradients, "gradients": gradients}
        return [{**told, "lost": lost, "robust": robust}] * 3

    few, many = "AutoAttack on resnet20 at 2/255, 4 images", "AutoAttack on resnet4b at 2/255, 4 images"
    measured = {
        Point(cascade.NAME, few, cascade.OURS): outcome(5, "1111"),
        Point(cascade.NAME, few, cascade.ALONE): outcome(100, "1111"),
        Point(cascade.NAME, many, cascade.OURS): outcome(1000, "1100"),
        Point(cascade.NAME, many, cascade.ALONE): outcome(1100, "1101"),
    }
    found = list(cascade.figures(measured))
    assert [f.unit for f in found] == ["seconds", "gradients", "forwards"] * 2
    assert [(f.ratio, f.bar, f.missed) for f in found if f.bar] == [(20, 10, False), (1.1, 10, True)]
    assert [f.parity["same_verdict"] for f in found if f.bar] == [1, 0.75]
    assert found[2].parity["forwards_against"] == 200
    assert list(cascade.figures({p: o for p, o in measured.items() if p.subject == cascade.OURS})) == []


@pytest.mark.slow
def test_where_nothing_stands_the_same_verdict_costs_a_tenth(real_data: Path) -> None:
    case = str(cascade.QUICK[0])
    ours, alone = (cascade.SUBJECTS[name](case)() for name in (cascade.OURS, cascade.ALONE))
    assert ours["lost"] == alone["lost"]
    assert ours["gradients"] < alone["gradients"] / 10
