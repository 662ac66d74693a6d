"""The bench's attacks: what is counted is what was done, and bars stand where they were set."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.benchmarks import attacks, early_stopping
from benchmarks.speed.cases import AttackCase
from benchmarks.speed.results import Outcome, Point
from forefend.runtime.rng import KeyedRNG

CASE = "PGD-3 on random weights, 6 images"


@pytest.mark.parametrize("subject", attacks.SUBJECTS)
def test_gradients_are_counted_on_whatever_network_is_attacked(subject: str, small_target: None) -> None:
    run = attacks.SUBJECTS[subject](CASE)
    found = run()
    assert (found["gradients"], found["forwards"], found["images"]) == (3, 3, 6)
    assert len(found["lost"]) == 6
    assert found["robust"] == pytest.approx(found["lost"].count("0") / 6)
    assert found["seconds"] > 0
    assert found["excess"] <= 1e-6
    assert run()["lost"] == found["lost"]


def test_what_an_attack_returns_is_judged_by_the_network_as_it_was_loaded(small_target: None) -> None:
    assault = AttackCase("random weights", 1, images=4)
    x, y, _ = assault.on.images(4)
    network = assault.on.network()
    assert attacks.judged(network, x, x, y, assault)["lost"] == "0000"
    assert attacks.judged(network, x, x, (y + 1) % 10, assault)["lost"] == "1111"
    assert attacks.judged(network, x + 0.5, x, y, assault)["excess"] > 0.1


def test_a_peer_that_steps_less_is_found_out(small_target: None) -> None:
    def lazy(network: nn.Module, x: Tensor, y: Tensor, assault: AttackCase, rng: KeyedRNG) -> Tensor:
        return attacks.ours(network, x, y, AttackCase(assault.target, 1), rng)

    assert attacks.work(lazy, None, CASE)()["gradients"] == 1


def outcome(seconds: float, lost: str = "0011") -> list[Outcome]:
    robust = lost.count("0") / len(lost)
    return [{"seconds": seconds, "lost": lost, "robust": robust, "gradients": 20.0}] * 3


def test_the_best_peers_bar_is_its_own_and_two_have_theirs_by_name() -> None:
    names = {"ours": 1.0, "ours, unprepared": 2.0, "torchattacks": 3.0, "adv-lib": 2.4, "foolbox": 3.4, "ART": 4.0}
    case = "PGD-20 on resnet20, 64 images"
    measured = {Point(attacks.NAME, case, name): outcome(seconds) for name, seconds in names.items()}
    prepared = Point(attacks.NAME, case, attacks.ON_OURS)
    found = {f.against: f for f in attacks.figures(measured | {prepared: outcome(1.1)})}
    bars = {name: figure.bar for name, figure in found.items()}
    none = {"ours, unprepared": None, "torchattacks": None, attacks.ON_OURS: None}
    assert bars == none | {"adv-lib": 2.5, "foolbox": 3.5, "ART": 3.5}
    assert {name for name, figure in found.items() if figure.missed} == {"adv-lib", "foolbox"}
    assert found["ART"].ratio == 4.0
    assert list(attacks.figures({p: o for p, o in measured.items() if p.subject != "ours"})) == []


def test_parity_is_image_by_image() -> None:
    a, b = Point("attack", "c", "a"), Point("attack", "c", "b")
    found = attacks.parity({a: outcome(1, "0011"), b: outcome(1, "0100")}, a, b)
    assert (found["robust"], found["robust_against"], found["same_verdict"]) == (0.5, 0.75, 0.25)


def test_leaving_early_takes_fewer_gradients_to_the_same_verdict(small_target: None) -> None:
    case = "PGD-4 x 2 on random weights, 6 images"
    ours, fp32, end = (
        early_stopping.SUBJECTS[name](case)() for name in (early_stopping.OURS, "ours, fp32", early_stopping.PLAIN)
    )
    assert fp32["robust"] <= end["robust"]  # it judges every iterate, not the last alone
    standing = [i for i, lost in enumerate(fp32["lost"]) if lost == "0"]
    assert 8 * len(standing) / 6 <= fp32["gradients"] <= end["gradients"] <= 8
    assert 1 <= ours["gradients"] <= 8


def test_five_attempts_are_promised_more_than_one() -> None:
    assert early_stopping.bar("PGD-20 on resnet20, 128 images") == 4
    assert early_stopping.bar("PGD-100 x 5 on resnet4b, 128 images") == 8
    case = "PGD-100 x 5 on resnet4b, 128 images"
    names = {early_stopping.OURS: 1.0, early_stopping.PLAIN: 5.0, "torchattacks": 7.0, "adv-lib": 8.5}
    found = list(
        early_stopping.figures(
            {Point(early_stopping.NAME, case, name): outcome(seconds) for name, seconds in names.items()}
        )
    )
    assert {f.against: f.bar for f in found if f.bar} == {"torchattacks": 8}
    assert [f.missed for f in found if f.bar] == [True]
    assert [f.unit for f in found] == ["seconds"] * 3 + ["gradients"]


def test_a_judge_errs_where_the_label_is_another() -> None:
    judge = nn.Sequential(nn.Flatten())
    x = torch.eye(2).view(2, 2, 1, 1)
    assert early_stopping.errs(judge, x, torch.tensor([0, 0])).tolist() == [False, True]
