"""The benchmark of the cascade: counts of passes, and AutoAttack alone as its last stage."""

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
from forefend.evaluation.access import Access
from forefend.evaluation.attack_runner import run_all_steps, stop_at_success
from forefend.evaluation.trial import Cascade, Trial
from forefend.models.optimized_copy import optimized_copy
from forefend.threat_models.lp import Linf


@pytest.mark.parametrize("case", [*cascade.FULL, *cascade.QUICK], ids=str)
def test_parse_case_inverts_str(case: cascade.CascadeCase) -> None:
    assert cascade.parse_case(str(case)) == case


@pytest.mark.parametrize(
    "case", ["", "PGD-20 on resnet20", "AutoAttack on vgg at 1/255, 3 images", "AutoAttack on resnet20 at 1/255"]
)
def test_parse_case_other_text_is_refused(case: str) -> None:
    with pytest.raises(InputError):
        cascade.parse_case(case)


def short(threat: Linf) -> tuple[Trial, Trial]:
    """Return two steps, then four on the robust images; and the four alone."""
    cheap = Trial(
        "cheap", PGD(threat, 2, threat.radius / 2), threat, access=Access(precision="bf16"), run=stop_at_success
    )
    alone = Trial("last", PGD(threat, 4, threat.radius / 2), threat)
    return Trial("chain", alone.attack, threat, run=Cascade((cheap,))), alone


@pytest.mark.parametrize(("radius", "gradients", "lost"), [("0.001/255", (6, 4), "0000"), ("200/255", (2, 4), "1111")])
def test_work_counts_gradients_of_network_and_copies(
    radius: str, gradients: tuple[int, int], lost: str, small_model: None
) -> None:
    case = f"AutoAttack on random weights at {radius}, 4 images"
    found = [cascade.work(trial, case)() for trial in short(cascade.parse_case(case).threat)]
    assert [one["lost"] for one in found] == [lost, lost]
    assert tuple(one["gradients"] for one in found) == gradients
    assert all(one["forwards"] > one["gradients"] and one["images"] == 4 for one in found)
    assert found[0]["robust"] == lost.count("0") / 4


def test_work_misclassified_clean_image_is_not_attacked(small_model: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = "AutoAttack on random weights at 0.001/255, 4 images"
    x, y, index = cases.MODELS["random weights"].images(4)
    monkeypatch.setattr(
        type(cases.MODELS["random weights"]), "images", lambda self, n: (x, torch.where(index == 2, 9 - y, y), index)
    )
    found = cascade.work(short(Linf("0.001/255"))[1], case)()
    assert found["lost"] == "0010"
    assert found["gradients"] == 3 * 4 / 4


def test_counted_passes_other_networks_do_not_count() -> None:
    mine, other, x = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), torch.rand(3, 1, 2, 2, requires_grad=True)
    copy = optimized_copy(mine.eval(), x.detach())
    with cascade.counted_passes(mine) as passes:
        for network in (mine, copy, other):
            torch.autograd.grad(network(x).sum(), x)
    mine(x)
    assert passes == {"forwards": 6, "gradients": 6}


def test_alone_is_the_last_stage_of_the_cascade() -> None:
    pytest.importorskip("pyautoattack", reason="the extra eval is not installed")
    chain, alone = cascade.chain(Linf(0.1)), cascade.alone(Linf(0.1))
    assert alone.run is run_all_steps
    assert (alone.attack, alone.threat, alone.access) == (chain.attack, chain.threat, chain.access)
    assert str(chain).startswith(f"{alone} after ")


def test_figures_robust_images_miss_the_target() -> None:
    def outcome(gradients: float, lost: str) -> list[Outcome]:
        robust = lost.count("0") / len(lost)
        costs = {"seconds": 1 + gradients, "forwards": 2 * gradients, "gradients": gradients}
        return [{**costs, "lost": lost, "robust": robust}] * 3

    few, many = "AutoAttack on resnet20 at 2/255, 4 images", "AutoAttack on resnet4b at 2/255, 4 images"
    measured = {
        Point(cascade.NAME, few, cascade.OURS): outcome(5, "1111"),
        Point(cascade.NAME, few, cascade.ALONE): outcome(100, "1111"),
        Point(cascade.NAME, many, cascade.OURS): outcome(1000, "1100"),
        Point(cascade.NAME, many, cascade.ALONE): outcome(1100, "1101"),
    }
    found = list(cascade.figures(measured))
    assert [f.unit for f in found] == ["seconds", "gradients", "forwards"] * 2
    assert [(f.ratio, f.target, f.missed) for f in found if f.target] == [(20, 10, False), (1.1, 10, True)]
    assert [f.parity["same_verdict"] for f in found if f.target] == [1, 0.75]
    assert found[2].parity["forwards_against"] == 200
    assert list(cascade.figures({p: o for p, o in measured.items() if p.implementation == cascade.OURS})) == []


@pytest.mark.slow
def test_cascade_without_robust_images_costs_a_tenth(real_data: Path) -> None:
    case = str(cascade.QUICK[0])
    ours, alone = (cascade.IMPLEMENTATIONS[name](case)() for name in (cascade.OURS, cascade.ALONE))
    assert ours["lost"] == alone["lost"]
    assert ours["gradients"] < alone["gradients"] / 10
