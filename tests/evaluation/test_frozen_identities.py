"""The identities of trials and their random starts, as committed records hold them: they must never change."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forefend.attacks.pgd import PGD
from forefend.evaluation.access import Access, CraftedOn
from forefend.evaluation.suites import SUITES
from forefend.evaluation.trial import Terms, Trial
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

# identity: the first two uniform numbers of image 7, seed 3, restart 1
FROZEN = {
    "Budgeted-40(Square-2000(Linf:8/255, loss=margin, area=0.025, horizon=200000)) in Linf:8/255 [white_box] after Budgeted-20(APGDRotation-720(Linf:8/255, 10 classes, ce, targeted_margin, ce, probability_margin, ce, dlr, 20+40 x12)) in Linf:8/255 (white_box in fp32) until lost until lost": (  # noqa: E501
        0.005863189697265625,
        0.9377292394638062,
    ),
    "PGD-1(Linf:8/255, step=8/255, loss=ce, start=from_x) in Linf:8/255 [white_box]": (
        0.6344330310821533,
        0.9508764147758484,
    ),
    "PGD-20(Linf:8/255, step=1/255, loss=ce, start=random_start) x2 in Linf:8/255 [white_box] until lost": (
        0.03928333520889282,
        0.5827654600143433,
    ),
    "PGD-20(Linf:8/255, step=1/255, loss=margin, start=random_start) x2 in Linf:8/255 [white_box] until lost": (
        0.9568065404891968,
        0.5948218703269958,
    ),
    "AutoAttack-standard(Linf:8/255, apgd-ce + apgd-t x9 + fab-t x9 + square 5000) in Linf:8/255 [white_box]": (
        0.8395344614982605,
        0.30506467819213867,
    ),
    "Square-1000(Linf:8/255, loss=margin, area=0.8, horizon=10000) in Linf:8/255 [white_box] until lost": (
        0.11350905895233154,
        0.6426067352294922,
    ),
    "HopSkipJump-2000(Linf:8/255, samples=100, gamma=1.0) in Linf:8/255 [black_box]": (
        0.8514648675918579,
        0.9867616891860962,
    ),
    "Boundary-2000(Linf:8/255, spherical=0.1, source=0.03) in Linf:8/255 [black_box]": (
        0.6715556979179382,
        0.7120389938354492,
    ),
    "PGD-20(Linf:8/255, step=1/255, loss=ce, start=random_start) in Linf:8/255 [oblivious]": (
        0.8922435641288757,
        0.7949011325836182,
    ),
    "PGD-20(Linf:8/255, step=1/255, loss=ce, start=random_start) in Linf:8/255 [eot 20 white_box]": (
        0.2589489817619324,
        0.7656216025352478,
    ),
    "AutoAttack-rand(Linf:8/255, apgd-ce + apgd-dlr, eot 20) in Linf:8/255 [white_box]": (
        0.19944941997528076,
        0.6046522259712219,
    ),
    "PGD-20(Linf:8/255, step=1/255, loss=ce, start=random_start) in Linf:8/255 [transfer from net b8e8f57678ba9722]": (
        0.6247650384902954,
        0.1202344298362732,
    ),
    "Momentum-20(Linf:8/255, step=0.003137254901960784, decay=1, loss=ce, shown=as_it_is, smooth=unfiltered) in Linf:8/255 [transfer from net b8e8f57678ba9722]": (  # noqa: E501
        0.6053553819656372,
        0.08642971515655518,
    ),
    "PGD-20(Linf:8/255, step=10/255, loss=ce, start=random_start) in Linf:8/255 [white_box]": (
        0.27695637941360474,
        0.2573249340057373,
    ),
    "PGD-20(Linf:8/255, step=0.00196078431372549, loss=ce, start=random_start) in Linf:8/255 [white_box]": (
        0.9742693901062012,
        0.9848487377166748,
    ),
    "PGD-20(Linf:8/255, step=0.0003921568627450981, loss=ce, start=random_start) in Linf:8/255 [white_box]": (
        0.17562484741210938,
        0.2584850788116455,
    ),
    "PGD-1(Linf:8/255, step=10/255, loss=ce, start=random_start) in Linf:8/255 [white_box]": (
        0.7150374054908752,
        0.8577483296394348,
    ),
    "PGD-100(Linf:8/255, step=0.0003921568627450981, loss=ce, start=random_start) x5 in Linf:8/255 [white_box]": (
        0.6074600219726562,
        0.32134324312210083,
    ),
    "PGD-40(Linf:8/255, step=0.01, loss=ce, start=random_start) in Linf:8/255 [white_box]": (
        0.005685269832611084,
        0.736347496509552,
    ),
    "PGD-40(Linf:8/255, step=0.007, loss=dlr, start=random_start) in Linf:8/255 [white_box]": (
        0.48894208669662476,
        0.7310241460800171,
    ),
    "ProjectedWasserstein-20(Wasserstein:8/255(window=5, exact=2), step=0.01, loss=ce, start=at_x) in Wasserstein:8/255(window=5, exact=2) [white_box]": (  # noqa: E501
        0.7823338508605957,
        0.35940736532211304,
    ),
    "Momentum-40(Linf:8/255, step=0.007, decay=0, loss=ce, shown=as_it_is, smooth=Gaussian 15 to 3) in Linf:8/255 [white_box]": (  # noqa: E501
        0.518474817276001,
        0.32875341176986694,
    ),
    "PGD-20(Linf:8/255, step=2/255, loss=ce, start=random_start) x10 in Linf:8/255 [white_box]": (
        0.9742822647094727,
        0.9525467157363892,
    ),
    "CW-1x100(L2:3, lr=10.0, c=100.0, confidence=0.0, checks=10) in L2:3 [white_box]": (
        0.1418033242225647,
        0.11344283819198608,
    ),
    "CW-9x100(L2:3, lr=0.1, c=100.0, confidence=0.0, checks=0) in L2:3 [white_box]": (
        0.05640554428100586,
        0.34458738565444946,
    ),
    "CW-9x1000(L2:3, lr=0.01, c=0.01, confidence=0.0, checks=0) in L2:3 [white_box]": (
        0.47442400455474854,
        0.9212712049484253,
    ),
}


def surrogate() -> nn.Module:
    """A network whose fingerprint is known."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    return network


def test_images_of_a_source_have_the_random_starts_of_its_white_box() -> None:
    identity = "PGD-20(Linf:8/255, step=1/255, loss=ce, start=random_start) in Linf:8/255"
    attack, view = PGD("Linf:8/255", 20, 1 / 255), CraftedOn(surrogate(), "net")
    trial = Trial("PGD-20 from net", attack, Linf("8/255"), access=Access(view))
    assert str(trial) == f"{identity} [crafted on net b8e8f57678ba9722]"
    assert trial.rng_key == f"{identity} [white_box]"


def all_trials() -> dict[str, Trial]:
    terms = Terms([Linf("8/255")], 10, {"net": surrogate()})
    return {str(trial): trial for make in SUITES.values() for trial in make(terms)}


@pytest.mark.parametrize("identity", FROZEN)
def test_trial_keeps_its_identity_and_random_start(identity: str) -> None:
    rng = KeyedRNG(torch.tensor([7]), 3, all_trials()[identity].rng_key, 1)
    assert rng.uniform(torch.zeros(1, 1, 1, 2)).flatten().tolist() == list(FROZEN[identity])
