"""evaluate, certify and corruptions as users call them: any data, names, several processes, little memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import evaluation_process
from helpers.threshold_classifier import Threshold, curve, levels, robust_share
from helpers.toy_networks import classifier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import forefend as ff
from forefend.checks import InputError
from forefend.evaluation import model_checks
from forefend.evaluation.evaluate import prepare
from forefend.evaluation.results import Result

X, Y, _ = levels().batch(torch.arange(40))
DATA: dict[str, Any] = {
    "pair": (X, Y),
    "numpy": (X.numpy(), Y.numpy()),
    "dataset": TensorDataset(X, Y),
    "loader": DataLoader(TensorDataset(X, Y), batch_size=7),
}


@pytest.mark.parametrize("form", DATA)
def test_evaluate_accepts_data_suite_and_threat(form: str) -> None:
    results = ff.evaluate(Threshold(), DATA[form], suite="quick", threat="Linf:0.2")
    assert {r.attack: r.accuracy for r in results} == {"none": 1.0} | dict.fromkeys(
        ("FGSM", "PGD-20", "PGD-20 margin", "worst"), robust_share(0.2)
    )


def test_evaluate_with_several_threats_has_a_result_for_each() -> None:
    results = ff.evaluate(Threshold(), (X, Y), "curve", ["Linf:0.1", ff.Linf(0.2)])
    assert [(r.radius, r.accuracy) for r in results] == [
        (0.0, 1.0),
        (0.1, robust_share(0.1)),
        (0.2, robust_share(0.2)),
    ]


def test_evaluate_with_an_unknown_suite_suggests_one() -> None:
    with pytest.raises(InputError, match="did you mean 'standard'"):
        ff.evaluate(Threshold(), (X, Y), "standart")


@pytest.mark.parametrize("name", ["standard", "fast"])
def test_evaluate_refuses_attacks_for_other_classes(name: str) -> None:
    suite = getattr(ff.suites, name)("Linf:8/255")
    with pytest.raises(InputError, match="made for 10 classes and the data has 2"):
        ff.evaluate(Threshold(), (X, Y), suite)


def test_results_print_a_table_and_markdown() -> None:
    models = [ff.EvaluatedModel("near", Threshold()), ff.EvaluatedModel("far", Threshold(0.45))]
    results = ff.evaluate(models, (X, Y), curve((0.1, 0.2)))
    heading, _, near, far, caption = str(results).splitlines()
    assert heading.split() == ["classifier", "defense", "clean", "Linf", "0.1", "Linf", "0.2"]
    assert near.startswith("near        no")
    assert f"{100 * robust_share(0.2):.1f} [" in near
    assert far.startswith("far ")
    assert "attacks: FGSM" in caption
    rows = results.to_markdown().splitlines()
    assert rows[0] == "| classifier | defense | clean | Linf 0.1 | Linf 0.2 |"
    assert [row.count("|") for row in rows[:4]] == [6] * 4


def test_results_worst_is_the_lowest_accuracy() -> None:
    models = [ff.EvaluatedModel("near", Threshold()), ff.EvaluatedModel("far", Threshold(0.45))]
    results = ff.evaluate(models, (X, Y), curve((0.1, 0.2)))
    assert results.worst("near").accuracy == robust_share(0.2)
    assert results.worst() == min(results, key=lambda result: result.accuracy)


def test_prepare_checks_once_and_run_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[str] = []
    for name in ("is_random", "has_gradient", "check_classifier"):
        original = getattr(model_checks, name)
        monkeypatch.setattr(
            model_checks, name, lambda *args, name=name, f=original, **more: (probes.append(name), f(*args, **more))[1]
        )
    evaluation = prepare(Threshold(), (X, Y), "quick", "Linf:0.2")
    assert sorted(probes) == ["check_classifier", "has_gradient", "is_random"]
    results: list[Result] = evaluation.run()
    assert len(probes) == 3
    assert results == ff.evaluate(Threshold(), (X, Y), "quick", "Linf:0.2")


class Small(nn.Module):
    """A toy classifier with memory for two images."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.network(x)


def test_certify_and_corruptions_halve_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    votes = [certificate.votes for certificate in evaluation_process.certified(None)]
    results = evaluation_process.corrupted(None)
    monkeypatch.setattr(evaluation_process, "classifier", Small)
    assert [certificate.votes for certificate in evaluation_process.certified(None)] == votes
    assert evaluation_process.corrupted(None) == results
