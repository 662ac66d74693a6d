"""Networks that would deceive a suite are refused in words that say what remains."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.results import broken
from helpers.threshold_classifier import Threshold, levels
from helpers.toy_networks import CLASSES, classifier, toy_images
from torch import Tensor, nn

from forefend.attacks.autoattack import AutoAttack
from forefend.attacks.pgd import PGD, fgsm
from forefend.checks import InputError
from forefend.evaluation import suites
from forefend.evaluation.access import Access
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.cost_estimate import cost_of
from forefend.evaluation.evaluate import evaluate, verdicts
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.model_checks import has_gradient
from forefend.evaluation.suites import general
from forefend.evaluation.trial import Terms, Trial
from forefend.models.fingerprint import architecture_digest
from forefend.threat_models.lp import Linf

THREAT = Linf(0.1)


class Shifted(nn.Module):
    """The same weights in another form: a plain attribute decides."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.network, self.by = Threshold(), by

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x + self.by)


class InPlace(nn.Module):
    """A classifier that normalizes the very images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Threshold(0.0)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x.sub_(0.1)
        return self.network(x)


class ThroughNumpy(nn.Module):
    """A pipeline that leaves torch."""

    def forward(self, x: Tensor) -> Tensor:
        return Threshold()(torch.from_numpy(x.numpy()))


def test_record_key_contains_plain_attributes(tmp_path: Path) -> None:
    trials = [Trial("FGSM", fgsm(THREAT), THREAT)]
    own = [evaluate(Shifted(by), levels(), trials, allow_weak=True)[1].accuracy for by in (0.0, 0.3)]
    mixed = [
        broken(verdicts(EvaluatedModel("it", Shifted(by)), levels(), trials, folder=tmp_path)[-1]) for by in (0.0, 0.3)
    ]
    assert own == pytest.approx([1 - len(lost) / len(levels()) for lost in mixed])
    assert own[0] != own[1]
    assert architecture_digest(Shifted(0.3)) != architecture_digest(Shifted(0.2))
    assert architecture_digest(Shifted(0.3)) == architecture_digest(Shifted(0.3))


def test_evaluate_refuses_one_network_under_two_names() -> None:
    models = [EvaluatedModel("one", Threshold()), EvaluatedModel("two", Threshold())]
    with pytest.raises(InputError, match=r"one and two are the same network"):
        evaluate(models, levels(), [])


def test_evaluate_refuses_in_place_changes_of_images() -> None:
    with pytest.raises(InputError, match="changes its input in place"):
        evaluate(InPlace(), levels(), [Trial("FGSM", fgsm(THREAT), THREAT)], allow_weak=True)


def test_evaluate_without_gradient_suggests_black_box() -> None:
    x = levels().batch(torch.arange(2))[0]
    assert has_gradient(Threshold(), x)
    assert not has_gradient(ThroughNumpy(), x)
    with pytest.raises(InputError, match="suite black-box"):
        evaluate(ThroughNumpy(), levels(), [Trial("FGSM", fgsm(THREAT), THREAT)])
    cost = cost_of([EvaluatedModel("it", ThroughNumpy())], levels(), general.quick(THREAT)[:1], 4)
    assert "At most 1 gradients" in str(cost)


def test_evaluate_refuses_stopping_at_random_success() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Threshold()(x + 0.05 * torch.randn_like(x))

    lucky = Trial("lucky", PGD(THREAT, 3, 0.01), THREAT, access=Access(eot_samples=4), run=stop_at_success)
    with pytest.raises(InputError, match="stops at the first lucky one"):
        evaluate(Noisy(), levels(), [lucky])


def test_trial_refuses_contradicting_arguments() -> None:
    with pytest.raises(InputError, match=r"F .*Linf:0.3.*Linf:0.01"):
        Trial("F", fgsm(Linf(0.01)), Linf(0.3))
    with pytest.raises(InputError, match="no steps to stop at"):
        Trial("A", AutoAttack(THREAT, 10), THREAT, run=stop_at_success)


def test_cost_of_halves_batches() -> None:
    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return classifier()(x)

    cost = cost_of([EvaluatedModel("it", Small())], toy_images(12), general.quick(THREAT), batch_size=12)
    assert str(cost).startswith("At most 81")


def test_gradients_count_all_eot_samples() -> None:
    gradients = [t.gradients() for t in suites.SUITES["randomized"](Terms([THREAT], CLASSES))]
    assert gradients[0] == 20 * 20
    nested = Trial("it", PGD(THREAT, 5, 0.1), THREAT, restarts=2, access=Access(eot_samples=3, precision="bf16"))
    assert nested.gradients() == 2 * 5 * 3
