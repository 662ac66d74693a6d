"""Evaluation of black boxes: suites, what records and tables say, identities, checks, and other measurements."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_files import write_linear
from helpers.threshold_classifier import Threshold, levels, robust_share
from torch import Tensor, nn

import forefend as ff
from forefend.attacks import Boundary, HopSkipJump, Square
from forefend.attacks.pgd import fgsm
from forefend.checks import InputError
from forefend.evaluation.access import Access, Surrogate
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.black_boxes import check_knowledge, default_suite, gives_scores
from forefend.evaluation.evaluate import prepare
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.gradient_masking.attack_suite import CheckBudget
from forefend.evaluation.gradient_masking.checks import OF_GRADIENTS, WITH_GRADIENTS
from forefend.evaluation.identification import examine
from forefend.evaluation.suites import SUITES, black_box, quick
from forefend.evaluation.trial import Trial
from forefend.models.classifiers.black_box import BlackBox, onnx_classifier
from forefend.models.defended import Defended
from forefend.models.preprocessors import build
from forefend.recipes.base import Networks
from forefend.threat_models.lp import Linf

pytest.importorskip("foolbox", reason="the extra blackbox is not installed")
THREAT = Linf(0.1)
ALONE = "is a black box: its accuracies are against a black-box attacker, who sees its answers alone"
NO_MARGIN = "gives scores without a margin"


def above(x: np.ndarray[Any, Any], at: float = 0.5) -> np.ndarray[Any, Any]:
    """Class 1 where the mean pixel is above the threshold, as `Threshold`."""
    return (x.mean((1, 2, 3)) > at).astype(np.int64)


def logits(x: np.ndarray[Any, Any], at: float = 0.5) -> np.ndarray[Any, Any]:
    gap = 30 * (x.mean((1, 2, 3)) - at)
    return np.stack([-gap, gap], 1)


def labels(score: Callable[..., Any] = above) -> BlackBox:
    return BlackBox(score, outputs="labels", classes=2)


def short(**changes: Any) -> list[Trial]:
    """The suite with few queries."""
    queries = 120 if not changes else changes["queries"]
    by_labels = [
        Trial("HopSkipJump", HopSkipJump(THREAT, queries, samples=10), THREAT),
        Trial("Boundary", Boundary(THREAT, queries), THREAT),
    ]
    return [Trial("Square", Square(THREAT, 60), THREAT, run=stop_at_success), *by_labels]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]


def test_labels_alone_are_judged_exactly_where_the_answer_is_known(tmp_path: Path) -> None:
    """No attack on flat images and a threshold is stronger than moving every pixel, and HopSkipJump finds it."""
    few = levels().subset(torch.arange(0, 40, 4))  # at 0.5 ± 0.01, 0.09, 0.17, 0.25, 0.33
    results = ff.evaluate(labels(), few, threat="Linf:0.1", folder=tmp_path)
    found = {result.attack: result.accuracy for result in results}
    assert list(found) == ["none", "HopSkipJump", "Boundary", "worst"]  # Square has nothing to climb
    assert found["HopSkipJump"] == pytest.approx(6 / 10)
    assert found["HopSkipJump"] <= found["Boundary"]


def test_records_summary_and_tables_say_black_box(tmp_path: Path) -> None:
    results = ff.evaluate([EvaluatedModel("scorer", labels())], levels(), short(), folder=tmp_path)
    trials = {line["trial"] for line in records(tmp_path)}
    assert len(trials) == 4
    assert all("[black_box]" in trial for trial in trials - {"none"})
    assert "white" not in json.dumps(records(tmp_path)) + (tmp_path / "summary.json").read_text(encoding="utf-8")
    for shown in (str(results), results.to_markdown(), str(ff.tables.attacks_of(results))):
        assert "scorer (black box)" in shown
    assert f"scorer {ALONE}" in results.warnings[0]
    assert "at most 300 times for an image, 12,000 times in all" in results.warnings[0]
    loaded = ff.evaluate([EvaluatedModel("scorer", labels())], levels(), short(), folder=tmp_path)
    assert (loaded, loaded.warnings) == (results, results.warnings)


def test_resumed_evaluation_of_a_black_box_asks_no_attack_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def counting(x: np.ndarray[Any, Any]) -> Any:
        asked.append(len(x))
        return above(x)

    first = ff.evaluate(labels(counting), levels(), short(), folder=tmp_path)
    whole = sum(asked)
    kept = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "records.jsonl").write_text("\n".join(kept[:-1]) + "\n", encoding="utf-8")  # as after a kill
    asked.clear()
    assert ff.evaluate(labels(counting), levels(), short(), folder=tmp_path) == first
    again = sum(asked)
    asked.clear()
    assert ff.evaluate(labels(counting), levels(), short(), folder=tmp_path) == first
    assert sum(asked) < again < whole


@pytest.mark.parametrize("suite", sorted(set(SUITES) - {"black-box"}))
def test_white_box_suite_on_a_black_box_is_refused_before_anything_is_asked(suite: str) -> None:
    if suite in ("standard", "randomized", "jatp", "aaa"):
        pytest.importorskip("pyautoattack", reason="the extra eval is not installed")

    def never(x: Any) -> Any:
        raise AssertionError("asked")

    for model in (BlackBox(never), Defended(build("identity", channels=1), BlackBox(never))):
        with pytest.raises(
            InputError, match=r"is a black box, and .* needs its gradient.*--suite black-box.*--surrogates"
        ):
            ff.evaluate(model, levels(), suite, "Linf:0.1")


def test_default_suite_is_black_box_for_a_black_box_alone() -> None:
    box, network = EvaluatedModel("a", labels()), EvaluatedModel("b", Threshold())
    assert [default_suite([model]) for model in (box, network)] == ["black-box", "quick"]
    assert default_suite([network, box]) == "black-box"
    names = [trial.name for trial in prepare(Threshold(), levels(), threat="Linf:0.1").trials]
    assert names == ["FGSM", "PGD-20", "PGD-20 margin"]


def test_square_is_left_out_only_where_no_model_gives_scores() -> None:
    box, scores = EvaluatedModel("a", labels()), EvaluatedModel("b", BlackBox(logits))
    assert [gives_scores(models) for models in ([box], [scores], [box, scores])] == [False, True, True]
    assert [trial.name for trial in black_box("Linf:0.1")] == ["Square", "HopSkipJump", "Boundary"]
    assert [trial.name for trial in black_box("Linf:0.1", scores=False)] == ["HopSkipJump", "Boundary"]


def saturated(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.eye(2)[above(x)]


@pytest.mark.parametrize(
    ("box", "told"),
    [
        (labels(), True),
        (BlackBox(saturated, outputs="probabilities"), True),
        (BlackBox(lambda x: 5 * saturated(x) - 1), True),
        (BlackBox(logits), False),
        (BlackBox(lambda x: torch.from_numpy(logits(x)).softmax(1), outputs="probabilities"), False),
    ],
)
def test_scores_without_a_margin_are_told(box: BlackBox, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    network = Defended(build("identity", channels=1), box)
    models = [EvaluatedModel("it", box), EvaluatedModel("it", network, defended=True)]
    results = ff.evaluate(models, levels(), [])
    assert sum(NO_MARGIN in warning for warning in results.warnings) == told
    assert capsys.readouterr().out.count(NO_MARGIN) == told
    assert len(results.warnings) == 1 + told


def test_defended_black_box_is_attacked_through_its_defense() -> None:
    class Darker(nn.Module):
        """A defense that lowers every pixel by 0.05, and so moves the threshold."""

        def forward(self, x: Tensor) -> Tensor:
            return x - 0.05

    results = ff.evaluate(Defended(Darker(), labels()), levels(), short(), threat="Linf:0.02")
    assert results[0].classifier == "classifier (black box)"
    assert results[0].accuracy == pytest.approx(37 / 40)  # 0.51, 0.53 and 0.55 become class 0
    assert results.worst().accuracy == pytest.approx(30 / 40)  # by 0.1 also 0.57 … 0.65, and 0.49 and 0.47


def test_transfer_from_a_surrogate_needs_no_gradient_of_the_black_box() -> None:
    suite = black_box("Linf:0.1", {"other": Threshold()}, scores=False)[2:]
    results = ff.evaluate(labels(), levels(), suite)
    assert {result.attack for result in results} >= {"PGD-20 from other", "MI-FGSM from other"}
    assert results.worst().accuracy == pytest.approx(robust_share(0.1))
    with pytest.raises(InputError, match=r"surrogate other is a black box.*name another network"):
        check_knowledge([EvaluatedModel("it", Threshold())], black_box("Linf:0.1", {"other": labels()}))


def test_precision_of_a_copy_is_refused_for_a_black_box() -> None:
    trial = Trial("Square", Square(THREAT, 9), THREAT, access=Access(precision="fp32"), run=stop_at_success)
    with pytest.raises(InputError, match="cannot be copied"):
        ff.evaluate(labels(), levels(), [trial])


def test_black_box_is_no_guide() -> None:
    with pytest.raises(InputError, match=r"guide scorer is a black box.*put the defense in front"):
        Networks(guides=[BlackBox(logits, name="scorer")])  # type: ignore[list-item]


def test_identity_is_what_it_answers_not_the_name_of_the_function(tmp_path: Path) -> None:
    def run(score: Callable[..., Any], outputs: str = "labels") -> list[dict[str, Any]]:
        box = BlackBox(score, outputs=outputs, classes=2)
        ff.evaluate(box, levels(), [], folder=tmp_path / "out", allow_weak=True)
        return records(tmp_path / "out")

    once = run(lambda x: above(x))
    assert run(lambda x: 1 * above(x)) == once
    with pytest.raises(InputError, match="another evaluation"):
        run(lambda x: above(x, at=0.47))


def test_label_boxes_that_differ_between_images_only_are_told_apart() -> None:
    """Both are right on all images and on noise; the mixtures of two images show where their boundaries are."""
    first, second = (
        examine(labels(lambda x, at=at: above(x, at)), levels(), "it").answers or {} for at in (0.5, 0.503)
    )
    plain = [name for name in first if name.startswith("random")]
    assert all(first[name] == second[name] for name in plain)
    assert first.keys() == second.keys()
    assert first != second


def test_another_onnx_file_never_gets_the_verdicts_of_the_first(tmp_path: Path) -> None:
    """Files of equal labels: their bytes tell them apart."""
    pytest.importorskip("onnxruntime")
    weights = np.stack([-np.ones(4), np.ones(4)], 1).astype(np.float32)
    keys = []
    for scale in (1, 2, 1):
        path = write_linear(tmp_path / "a.onnx", scale * weights, ("n", 1, 2, 2), outputs="labels")
        box = onnx_classifier(path, outputs="labels", classes=2)
        folder = tmp_path / f"out {scale}"
        ff.evaluate(box, levels(), [], folder=folder, allow_weak=True)
        keys.append(records(folder)[-1]["model"])
    assert keys[0] == keys[2] != keys[1]
    with pytest.raises(InputError, match="another evaluation"):
        ff.evaluate(box, levels(), [], folder=tmp_path / "out 2", allow_weak=True)


@pytest.mark.parametrize("defended", [True, False])
def test_check_skips_what_needs_a_gradient_and_says_why(defended: bool) -> None:
    box = BlackBox(logits)
    model = Defended(build("identity", channels=1), box) if defended else box
    report = ff.check(model, levels(), "Linf:0.1", budget=CheckBudget(queries=20))
    assert report.passed
    skipped = [result for result in report if "a black box gives no gradient" in result.measured]
    assert len(skipped) == len(OF_GRADIENTS) + len(WITH_GRADIENTS)
    assert {result.status for result in skipped} == {"skipped"}
    assert len(report) == 18


def test_certify_and_corruptions_work_without_gradient() -> None:
    images = levels()
    certified, plain = (ff.certify(model, images, n=200) for model in (labels(), Threshold()))
    assert [(c.certified, c.radius) for c in certified] == [(c.certified, c.radius) for c in plain]
    few = {"corruptions": ["gaussian_noise"], "severities": [1]}
    large = ff.data.from_tensors("large", images.batch(torch.arange(40))[0].repeat(1, 1, 4, 4), images.labels)
    blind, seen = (ff.corruptions(model, large, **few) for model in (labels(), Threshold()))  # type: ignore[arg-type]
    assert [result.accuracy for result in blind] == [result.accuracy for result in seen]


def test_square_on_a_white_box_keeps_its_identity_and_a_black_box_gets_its_own(tmp_path: Path) -> None:
    square = short()[:1]
    for name, model in (("seen", Threshold()), ("blind", BlackBox(logits))):
        ff.evaluate(model, levels(), square, folder=tmp_path / name)
    seen, blind = ({line["trial"] for line in records(tmp_path / name)} - {"none"} for name in ("seen", "blind"))
    assert seen == {str(square[0])}
    assert {trial.replace("[black_box]", "[white_box]") for trial in blind} == seen != blind


def test_surrogate_view_of_a_white_box_is_not_changed() -> None:
    trial = Trial("FGSM", fgsm(THREAT), THREAT, access=Access(Surrogate(Threshold(), "other")))
    prepared = prepare(labels(), levels(), [trial])
    assert [str(each) for target in prepared.targets for each in target.trials] == [str(trial)]
    with pytest.raises(InputError, match="FGSM needs its gradient"):
        prepare(labels(), levels(), quick(THREAT))


def exactly_robust(weights: Tensor, bias: Tensor, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Whether no image of the l∞ ball within [0, 1] is misclassified by a linear classifier, `(B,)`."""
    x = x.flatten(1).double()
    low, high = (x - radius).clamp(0, 1) - x, (x + radius).clamp(0, 1) - x
    apart = weights[None] - weights[y][:, None]  # (B, K, pixels): towards each other class
    most = torch.maximum(apart * low[:, None], apart * high[:, None]).sum(2)
    gaps = x @ weights.T + bias
    gaps = gaps - gaps.gather(1, y[:, None]) + most
    return gaps.scatter(1, y[:, None], -1.0).amax(1) < 0


@pytest.mark.parametrize("outputs", ["labels", "probabilities"])
def test_scikit_learn_model_is_judged_close_to_its_exact_accuracy(outputs: str) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    x, y, _ = ff.data.load("digits", "train").batch(torch.arange(400))
    fitted = linear_model.LogisticRegression(max_iter=500).fit(x.flatten(1).numpy(), y.numpy())
    answer = fitted.predict if outputs == "labels" else fitted.predict_proba
    box = BlackBox(lambda x: answer(x.reshape(len(x), -1)), outputs=outputs, classes=10, name="logistic")
    few = ff.data.sample(ff.data.load("digits", "test"), 20, seed=0)
    images, labels_, _ = few.batch(torch.arange(20))
    weights, bias = (torch.from_numpy(part).double() for part in (fitted.coef_, fitted.intercept_))
    exact = float(exactly_robust(weights, bias, images, labels_, 0.1).double().mean())
    threat = Linf(0.1)
    suite = [Trial("HopSkipJump", HopSkipJump(threat), threat)]
    if outputs == "probabilities":
        suite = [Trial("Square", Square(threat, 1000), threat, run=stop_at_success)]
    found = ff.evaluate(box, few, suite).worst().accuracy
    assert exact <= found <= exact + (0.1 if outputs == "probabilities" else 0.2)  # labels need more queries
    assert exact < 0.7
