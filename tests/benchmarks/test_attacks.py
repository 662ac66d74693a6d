"""The benchmarks of attacks and early stopping: counts, verdicts and targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.benchmarks import attacks, early_stopping
from benchmarks.speed.cases import AttackCase
from benchmarks.speed.results import Outcome, Point
from forefend.runtime.rng import KeyedRNG

CASE = "PGD-3 on random weights, 6 images"


@pytest.mark.parametrize("implementation", attacks.IMPLEMENTATIONS)
def test_work_counts_gradients_of_the_attacked_network(implementation: str, small_model: None) -> None:
    run = attacks.IMPLEMENTATIONS[implementation](CASE)
    found = run()
    assert (found["gradients"], found["forwards"], found["images"]) == (3, 3, 6)
    assert len(found["lost"]) == 6
    assert found["robust"] == pytest.approx(found["lost"].count("0") / 6)
    assert found["seconds"] > 0
    assert found["excess"] <= 1e-6
    assert run()["lost"] == found["lost"]


def test_verdicts_are_those_of_the_network_as_loaded(small_model: None) -> None:
    case = AttackCase("random weights", 1, images=4)
    x, y, _ = case.model.images(4)
    network = case.model.network()
    assert attacks.verdicts(network, x, x, y, case)["lost"] == "0000"
    assert attacks.verdicts(network, x, x, (y + 1) % 10, case)["lost"] == "1111"
    assert attacks.verdicts(network, x + 0.5, x, y, case)["excess"] > 0.1


def test_work_of_an_attack_with_fewer_steps_counts_fewer(small_model: None) -> None:
    def lazy(network: nn.Module, x: Tensor, y: Tensor, case: AttackCase, rng: KeyedRNG) -> Tensor:
        return attacks.ours(network, x, y, AttackCase(case.name, 1), rng)

    assert attacks.work(lazy, None, CASE)()["gradients"] == 1


def outcome(seconds: float, lost: str = "0011") -> list[Outcome]:
    robust = lost.count("0") / len(lost)
    return [{"seconds": seconds, "lost": lost, "robust": robust, "gradients": 20.0}] * 3


def test_figures_fastest_and_named_baselines_have_targets() -> None:
    names = {"ours": 1.0, "ours, unprepared": 2.0, "torchattacks": 3.0, "adv-lib": 2.4, "foolbox": 3.4, "ART": 4.0}
    case = "PGD-20 on resnet20, 64 images"
    measured = {Point(attacks.NAME, case, name): outcome(seconds) for name, seconds in names.items()}
    optimized = Point(attacks.NAME, case, attacks.ON_OURS)
    found = {f.against: f for f in attacks.figures(measured | {optimized: outcome(1.1)})}
    targets = {name: figure.target for name, figure in found.items()}
    none = {"ours, unprepared": None, "torchattacks": None, attacks.ON_OURS: None}
    assert targets == none | {"adv-lib": 2.5, "foolbox": 3.5, "ART": 3.5}
    assert {name for name, figure in found.items() if figure.missed} == {"adv-lib", "foolbox"}
    assert found["ART"].ratio == 4.0
    assert list(attacks.figures({p: o for p, o in measured.items() if p.implementation != "ours"})) == []


def test_parity_compares_verdicts_image_by_image() -> None:
    a, b = Point("attack", "c", "a"), Point("attack", "c", "b")
    found = attacks.parity({a: outcome(1, "0011"), b: outcome(1, "0100")}, a, b)
    assert (found["robust"], found["robust_against"], found["same_verdict"]) == (0.5, 0.75, 0.25)


def test_early_stopping_takes_fewer_gradients(small_model: None) -> None:
    case = "PGD-4 x 2 on random weights, 6 images"
    ours, fp32, end = (
        early_stopping.IMPLEMENTATIONS[name](case)()
        for name in (early_stopping.OURS, "ours, fp32", early_stopping.PLAIN)
    )
    assert fp32["robust"] <= end["robust"]  # it classifies every iterate, not only the last
    robust = [i for i, lost in enumerate(fp32["lost"]) if lost == "0"]
    assert 8 * len(robust) / 6 <= fp32["gradients"] <= end["gradients"] <= 8
    assert 1 <= ours["gradients"] <= 8


def test_target_with_five_restarts_is_higher_than_with_one() -> None:
    assert early_stopping.target("PGD-20 on resnet20, 128 images") == 4
    assert early_stopping.target("PGD-100 x 5 on resnet4b, 128 images") == 8
    case = "PGD-100 x 5 on resnet4b, 128 images"
    names = {early_stopping.OURS: 1.0, early_stopping.PLAIN: 5.0, "torchattacks": 7.0, "adv-lib": 8.5}
    found = list(
        early_stopping.figures(
            {Point(early_stopping.NAME, case, name): outcome(seconds) for name, seconds in names.items()}
        )
    )
    assert {f.against: f.target for f in found if f.target} == {"torchattacks": 8}
    assert [f.missed for f in found if f.target] == [True]
    assert [f.unit for f in found] == ["seconds"] * 3 + ["gradients"]


def test_misclassifies_compares_with_labels() -> None:
    network = nn.Sequential(nn.Flatten())
    x = torch.eye(2).view(2, 2, 1, 1)
    assert early_stopping.misclassifies(network, x, torch.tensor([0, 0])).tolist() == [False, True]
