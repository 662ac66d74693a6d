from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers.toy_networks import CLASSES, classifier, toy_images
from torch import Tensor, nn

from forefend.attacks.pgd import PGD, fgsm, from_x, random_start
from forefend.checks import InputError
from forefend.evaluation.access import Access, Surrogate, oblivious, white_box
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.suites import SUITES, general, papers, suite_named
from forefend.evaluation.trial import Suite, Terms, Trial
from forefend.models import preprocessors
from forefend.models.defended import Defended
from forefend.models.fingerprint import fingerprint
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

THREATS: list[ThreatModel] = [Linf("2/255"), Linf("4/255"), Linf("8/255"), L2(0.5)]


def terms(threats: list[ThreatModel] | None = None) -> Terms:
    return Terms(threats or THREATS, CLASSES, {"other": classifier(seed=3)})


def every_suite() -> dict[str, Suite]:
    one_radius_each = terms([Linf("8/255")])
    return {"curve 50": general.curve(THREATS, steps=50)} | {
        name: suite(one_radius_each if name in ("aaa", "jatp") else terms()) for name, suite in SUITES.items()
    }


@pytest.mark.parametrize("name", every_suite())
def test_suite_identities_are_distinct_and_stable(name: str) -> None:
    trials = every_suite()[name]
    identities = [str(trial) for trial in trials]
    assert len(set(identities)) == len(trials)
    for trial, identity in zip(trials, identities, strict=True):
        assert " at 0x" not in identity
        assert str(trial.threat) in identity
    views = {identity[identity.rindex("[") + 1 : identity.rindex("]")] for identity in identities}
    assert name in ("black-box", "transfer", "randomized", "standard") or views == {"white_box"}


def test_suite_identities_equal_in_another_process(python: Callable[..., str]) -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}; from evaluation import test_suites as t\n"
    other = python(program + "for s in t.every_suite().values():\n for trial in s:\n  print(trial)")
    assert other.splitlines() == [str(trial) for suite in every_suite().values() for trial in suite]


def test_trial_identity_contains_all_settings() -> None:
    threat = Linf(0.1)
    trials = [
        Trial("a", PGD(threat, 20, 0.01), threat),
        Trial("a", PGD(threat, 20, 0.01), threat, restarts=2),
        Trial("a", PGD(threat, 20, 0.01), threat, access=Access(oblivious)),
        Trial("a", PGD(threat, 20, 0.02), threat),
        Trial("a", PGD(threat, 10, 0.01), threat),
        Trial("a", PGD(threat, 20, 0.01, start=from_x), threat),
        Trial("a", PGD(L2(0.1), 20, 0.01), L2(0.1)),
    ]
    assert len({str(trial) for trial in trials}) == len(trials)


def test_rtfe_step_sizes_scale_with_the_radius() -> None:
    trials = papers.rtfe(THREATS[:3])
    assert [trial.name for trial in trials[:3]] == ["RTFE step 1.25ε", "RTFE step 1.25ε/20", "RTFE step 1.25ε/100"]
    pixels = [255 * trial.attack.step_size for trial in trials]
    assert pixels == pytest.approx([2.5, 0.125, 0.025, 5, 0.25, 0.05, 10, 0.5, 0.1])
    assert {(trial.attack.steps, trial.restarts, trial.attack.start) for trial in trials} == {(20, 1, random_start)}
    assert all(trial.attack.threat == trial.threat for trial in trials)


def test_trial_gradients_are_counted() -> None:
    assert [trial.gradients() for trial in general.quick(Linf(0.1))] == [1, 40, 40]
    assert sum(trial.gradients() for trial in general.curve(THREATS)) == 4 * 40
    assert Trial("it", lambda *_, **__: torch.empty(0), Linf(0.1)).gradients() == 1


def test_quick_steps_sum_to_two_and_a_half_radii() -> None:
    first, ce, margin = general.quick(Linf(0.1))
    assert first.attack == fgsm(Linf(0.1))
    for trial in (ce, margin):
        assert trial.attack.steps * trial.attack.step_size == pytest.approx(0.25)
    assert ce.attack.loss is not margin.attack.loss


def test_views_return_model_or_classifier() -> None:
    bare, guarded = nn.Flatten(), Defended(nn.Identity(), nn.Flatten())
    assert white_box(guarded) is guarded
    assert oblivious(guarded) is guarded.classifier
    assert oblivious(bare) is white_box(bare) is bare


@pytest.mark.parametrize(
    "name", [*(name for name in SUITES if name != "aaa"), pytest.param("aaa", marks=pytest.mark.slow)]
)
def test_every_suite_runs_and_breaks_something(name: str) -> None:
    suite = SUITES[name](terms([Linf(0.25)]))
    guarded = Defended(nn.Identity(), classifier())
    cells = evaluate(guarded, toy_images(6), suite, batch_size=6)
    clean, *attacked = cells
    assert {cell.attack for cell in attacked} - {"worst"} == {trial.name for trial in suite}
    assert min(cell.accuracy for cell in attacked) <= clean.accuracy


def test_aaa_adaptive_attacks_the_autoencoder() -> None:
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
            self.decoder = nn.Linear(5, 36)

        def forward(self, x: Tensor) -> Tensor:
            return self.decoder(self.encoder(x)).view_as(x)

    suite = papers.aaa_adaptive([Linf(0.2)], toy_images(8))
    assert suite[0].access(Defended(Autoencoder(), classifier()))(torch.rand(2, 1, 6, 6))[1].shape == (2, 1, 6, 6)
    assert suite[1].access(Defended(Autoencoder(), classifier()))(torch.rand(2, 1, 6, 6)).shape == (2, 5)
    suite = [replace(trial, restarts=1) for trial in papers.aaa_adaptive(["Linf:0.05"], toy_images(8))]
    cells = evaluate(Defended(Autoencoder(), classifier()), toy_images(4), suite)
    assert [cell.attack for cell in cells] == ["none", "PGD with reconstruction", "latent", "BPDA", "worst"]


def test_aaa_adaptive_takes_the_steps_of_aaa() -> None:
    for threat in ("Linf:0.3", "Linf:8/255"):
        pgd, *adaptive = papers.aaa([threat])[0], *papers.aaa_adaptive([threat], toy_images(8))
        assert len(adaptive) == 3
        for trial in adaptive:
            attack = getattr(trial.attack, "attack", trial.attack)
            settings = attack.steps, attack.step_size, trial.restarts
            assert settings == (pgd.attack.steps, pgd.attack.step_size, pgd.restarts)


@pytest.mark.parametrize("name", ["narrow-unet", "residual-unet", "robustifier-4"])
def test_aaa_adaptive_runs_on_u_nets(name: str) -> None:
    small = {"widths": (4, 8), "depths": (1, 1)} if "unet" in name else {"scale": 1}
    guarded = Defended(preprocessors.build(name, channels=1, **small).eval(), classifier())
    suite = [replace(trial, restarts=1) for trial in papers.aaa_adaptive(["Linf:0.05"], toy_images(8))]
    latents = suite[1].access(guarded)(torch.rand(2, 1, 6, 6))
    assert latents.shape[0] == 2
    assert latents[0, 0].numel() < 36
    assert len(evaluate(guarded, toy_images(4), suite, allow_weak=True)) == 5


def test_aaa_carlini_wagner_search_breaks_what_the_single_weight_leaves() -> None:
    """A natural classifier is near its boundary in L2: the reading that searches c finds it, overshooting does not."""
    single, search = papers.aaa_carlini_wagner()[:2]
    assert (single.attack.searches, search.attack.searches) == (1, 9)
    assert single.attack.weight == search.attack.weight == 100
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.full((4, 1, 8, 8), 0.5)
    y = network(x).argmax(1)
    assert torch.equal(single.attack(network, x, y), x)
    assert (network(search.attack(network, x, y)).argmax(1) != y).all()


def test_papers_protocols_equal_the_printed_ones() -> None:
    eight = 8 / 255
    jatp = papers.jatp([Linf("8/255")], 10)
    assert [trial.name for trial in jatp] == ["PGD-40", "DLR-40", "AutoAttack", "FWA-20", "TI-BIM"]
    assert [getattr(trial.attack, "steps", None) for trial in jatp] == [40, 40, 1910, 20, 40]
    assert jatp[0].attack.step_size == pytest.approx(0.01)
    assert jatp[1].attack.step_size == pytest.approx(0.007)
    weak, strong = papers.rtfe_strong_weak([Linf("8/255")])
    assert (weak.attack.steps, weak.attack.step_size, weak.restarts) == (1, pytest.approx(1.25 * eight), 1)
    assert (strong.attack.steps, strong.attack.step_size, strong.restarts) == (100, pytest.approx(eight / 80), 5)
    steps = [trial.attack.step_size for trial in papers.robustifier([Linf(0.031)])]
    assert steps == pytest.approx([0.008, 0.004, 0.0015])
    assert {(trial.attack.steps, trial.restarts) for trial in papers.robustifier([Linf(0.031)])} == {(20, 5)}
    mnist, cifar = papers.aaa([Linf(0.3)])[0], papers.aaa([Linf("8/255")])[0]
    assert (mnist.attack.steps, mnist.attack.step_size, mnist.restarts) == (100, 0.01, 50)
    assert (cifar.attack.steps, cifar.attack.step_size, cifar.restarts) == (20, pytest.approx(2 / 255), 10)
    assert [str(trial.threat) for trial in papers.aaa([Linf(0.3)])[1:]] == ["L2:3"] * 3
    few = papers.transfer([Linf(0.03125)], {"densenet": classifier()})
    assert [trial.name for trial in few] == ["FGSM white-box", "PGD-7 white-box", "FGSM densenet", "PGD-7 densenet"]
    assert few[1].attack.start is from_x
    assert few[1].attack.step_size == 0.03125 / 4


def test_surrogate_view_names_its_fingerprint() -> None:
    other, one = classifier(seed=1), classifier(seed=2)
    view = Surrogate(other, "other")
    assert view(one) is other
    assert str(view) == f"transfer from other {fingerprint(other)}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("autoattak", "'standard' (AutoAttack)?"),
        ("Auto-Attack", "'standard' (AutoAttack)?"),
        ("standrd", "'standard'?"),
    ],
)
def test_unknown_suite_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError) as refusal:
        suite_named(name)
    assert str(refusal.value) == f"There is no suite called {name!r}: did you mean {hint}"
