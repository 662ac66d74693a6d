"""What an attacker is handed, and which trials a network takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.results import broken
from helpers.threshold_classifier import Threshold, levels, robust_share
from helpers.toy_networks import CLASSES, classifier, toy_images
from torch import Tensor, nn

from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.pgd import PGD, fgsm
from forefend.checks import InputError
from forefend.evaluation import suites
from forefend.evaluation.access import Access, Surrogate, oblivious, through_bpda
from forefend.evaluation.attack_runner import run_all_steps, stop_at_success
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import evaluate, verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.suites import general
from forefend.evaluation.trial import Cascade, Terms, Trial, with_copies
from forefend.models.defended import Defended
from forefend.models.fingerprint import state_digest
from forefend.models.optimized_copy import OptimizedCopy
from forefend.threat_models.lp import Linf

THREAT = Linf(0.1)


class Noisy(nn.Module):
    """A threshold that sees its images through noise."""

    def __init__(self, level: float = 0.02) -> None:
        super().__init__()
        self.network, self.level = Threshold(), level

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x + self.level * torch.randn_like(x))


class Rounded(nn.Module):
    """A defense without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.detach() * 255).round() / 255


def test_evaluate_random_model_requires_eot() -> None:
    with pytest.raises(InputError, match=r"random outputs.*FGSM.*eot"):
        evaluate(Noisy(), levels(), [Trial("FGSM", fgsm(THREAT), THREAT)])
    through = Trial("eot", PGD(THREAT, 3, 0.05), THREAT, access=Access(eot_samples=30))
    first, again = (evaluate(Noisy(), levels(), [through])[1].accuracy for _ in range(2))
    assert first == again
    assert first == pytest.approx(robust_share(0.1), abs=0.15)
    elsewhere = Trial("transfer", fgsm(THREAT), THREAT, access=Access(Surrogate(Threshold(), "another")))
    evaluate(Noisy(), levels(), [elsewhere])  # what the attacker sees does not answer at random


def test_evaluate_without_gradient_requires_bpda() -> None:
    guarded = Defended(Rounded(), Threshold())
    with pytest.raises(InputError, match=r"no gradient.*FGSM.*black-box.*through_bpda"):
        evaluate(guarded, levels(), [Trial("FGSM", fgsm(THREAT), THREAT)])
    alone = nn.Sequential(Rounded(), Threshold())
    assert evaluate(alone, levels(), general.black_box([THREAT])[:1])[1].accuracy < 1  # what the sentence says remains
    bpda = Trial("BPDA", fgsm(THREAT), THREAT, access=Access(through_bpda))
    queries = Trial("noise", PGD(THREAT, 1, 0.0), THREAT, access=Access(oblivious))
    cells = {cell.attack: cell.accuracy for cell in evaluate(guarded, levels(), [bpda, queries])}
    assert cells["BPDA"] == robust_share(0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_copies_lets_the_model_decide(precision: str) -> None:
    network = classifier()
    before = state_digest(network)
    suite = [Trial("PGD", PGD(Linf(0.03), 4, 0.01), Linf(0.03), 2, run=stop_at_success)]
    plain, swift = (
        evaluate(network, toy_images(60), s, allow_weak=True) for s in (suite, with_copies(suite, precision))
    )
    assert swift[1].accuracy == pytest.approx(plain[1].accuracy, abs=0.02)
    assert str(with_copies(suite, precision)[0]).endswith(f"[white_box in {precision}] until lost")
    assert state_digest(network) == before
    f = Access(precision=precision)(network)
    f(toy_images(8).batch(torch.arange(8))[0])
    assert isinstance(f.copies[0], OptimizedCopy)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_copies_keeps_random_starts(precision: str) -> None:
    """The starts alone decide here, so that other numbers would break other images."""
    luck = Trial("luck", PGD(Linf(0.2), 1, 0.0), Linf(0.2), 3, run=stop_at_success)
    (swift,) = with_copies([luck], precision)
    assert str(swift) != str(luck)
    assert swift.rng_key == luck.rng_key == str(luck)
    plain, fast = (verdicts(EvaluatedModel("it", Threshold()), levels(), [trial]) for trial in (luck, swift))
    assert plain == fast
    assert 0 < len(broken(plain[1]) - broken(plain[0])) < len(levels()) - len(broken(plain[0]))


def test_rng_key_contains_eot_and_view() -> None:
    plain = Trial("it", PGD(THREAT, 1, 0.0), THREAT)
    views = [
        Access(),
        Access(eot_samples=3),
        Access(eot_samples=4),
        Access(eot_samples=3, precision="bf16"),
        Access(oblivious),
    ]
    assert len({replace(plain, access=view).rng_key for view in views}) == 4
    assert (
        replace(plain, access=Access(eot_samples=3, precision="bf16")).rng_key
        == replace(plain, access=Access(eot_samples=3)).rng_key
    )
    assert replace(plain, run=Cascade((plain,))).rng_key == str(plain)
    until = Cascade((plain,), stop_at_success)
    assert replace(plain, run=until).rng_key == str(replace(plain, run=stop_at_success))


def test_trial_on_device_without_bfloat16_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    plain = Trial("it", PGD(THREAT, 1, 0.0), THREAT, run=stop_at_success)
    swift = replace(plain, access=Access(precision="bf16"))
    suite = [
        plain,
        swift,
        replace(plain, access=Access(eot_samples=2, precision="bf16")),
        replace(plain, run=Cascade((swift, plain))),
    ]
    assert [trial.on(cpu) for trial in suite] == suite
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    slow = replace(plain, access=Access(precision="fp32"))
    assert [trial.on(cpu) for trial in suite] == [
        *(plain, slow, replace(plain, access=Access(eot_samples=2, precision="fp32"))),
        replace(plain, run=Cascade((slow, plain))),
    ]


def test_evaluate_accepts_an_iterator_of_trials() -> None:
    suite = general.curve([Linf(0.1), Linf(0.2)])
    whole = evaluate(Threshold(), levels(), suite)
    assert evaluate(Threshold(), levels(), iter(suite)) == whole
    assert evaluate(Threshold(), levels(), (trial for trial in suite)) == whole
    model = EvaluatedModel("it", Threshold())
    assert verdicts(model, levels(), iter(suite)) == verdicts(model, levels(), suite)


@pytest.mark.parametrize("suite", [general.quick, general.quick(THREAT)[0].attack, [PGD(THREAT, 1, 0.1)], [None]])
def test_evaluate_refuses_other_suites(suite: object) -> None:
    with pytest.raises(InputError, match="expected a list of Trials"):
        evaluate(Threshold(), levels(), suite)  # type: ignore[arg-type]


def test_with_copies_keeps_trials_that_run_all_steps() -> None:
    trial = Trial("PGD", PGD(THREAT, 4, 0.01), THREAT, run=run_all_steps)
    assert with_copies([trial]) == [trial]


def test_with_copies_gives_autoattack_fp32_only() -> None:
    network, images, threat = classifier(), toy_images(60, seed=1, split="test"), Linf(0.05)
    trial = Trial("AutoAttack", AutoAttack(threat, CLASSES, queries=20), threat)
    assert with_copies([trial], "bf16") == [trial]
    (swift,) = with_copies([trial], "fp32")
    assert swift == replace(trial, access=Access(precision="fp32"))
    randomized = replace(trial, attack=AutoAttack(threat, CLASSES, version="rand"))
    assert with_copies([randomized], "fp32") == [randomized]
    plain, fast = (verdicts(EvaluatedModel("it", network), images, [one]) for one in (trial, swift))
    assert plain == fast
    assert 0 < len(broken(plain[1]) - broken(plain[0])) < len(images) - len(broken(plain[0]))


def test_cost_of_is_stated_beforehand() -> None:
    suite = general.standard([THREAT], CLASSES)
    said = str(cost_of([EvaluatedModel("it", classifier())], toy_images(10), suite, batch_size=5))
    gradients = sum(trial.gradients() for trial in suite)
    assert said.startswith(f"At most {gradients} gradients and ")
    assert [trial.gradients() for trial in suite][1:] == [0, 20]
    assert suite[1].forwards() == 1000
    guarded = Defended(Rounded(), Threshold())
    cost = cost_of([EvaluatedModel("it", guarded)], levels(), general.black_box([THREAT])[:1], batch_size=5)
    assert "0 gradients" in str(cost)
    assert cost.among(4).seconds == cost.seconds / 4


def test_cost_of_attacks_in_small_batches_states_no_time() -> None:
    pytest.importorskip("foolbox")
    said = str(cost_of([EvaluatedModel("it", Threshold())], levels(), general.black_box([THREAT]), batch_size=5))
    assert said.startswith("At most 0 gradients and 5000 further forward passes for each image, time not estimated")
    assert "of the small batches of HopSkipJump and Boundary" in said
    assert "measured" not in said


def test_all_suites_are_made_from_terms() -> None:
    terms = Terms([THREAT], CLASSES)
    assert all(len(suite(terms)) > 0 for suite in suites.SUITES.values())
