"""A model without a gradient is attacked with that of the network it was made from, and the records say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.toy_networks import CLASSES, classifier, toy_images, trained_classifier
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.evaluation import int8_robustness as module
from forefend.evaluation.access import Access, GradientOf
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.int8_robustness import float_gradient, int8_robustness
from forefend.evaluation.suites import quick
from forefend.models.classifiers import BlackBox
from forefend.models.fingerprint import fingerprint
from forefend.threat_models.lp import Linf

IMAGES = toy_images(24, seed=1, split="test")
X, Y, _ = IMAGES.batch(torch.arange(24))


def coarse(network: nn.Module, step: float = 0.05) -> BlackBox:
    """The network with logits on a grid, as a function without a gradient."""
    return BlackBox(lambda x: (network(torch.from_numpy(x)) / step).round() * step, classes=CLASSES, name="coarse")


def test_the_view_has_the_outputs_of_the_model_and_the_gradient_of_the_network() -> None:
    network = trained_classifier()
    box = coarse(network)
    x = X.clone().requires_grad_()
    logits = GradientOf(network, "float32")(box)(x)
    assert torch.equal(logits, box(X))
    (found,) = torch.autograd.grad(logits.gather(1, Y[:, None]).sum(), x)
    (expected,) = torch.autograd.grad(network(x).gather(1, Y[:, None]).sum(), x)
    assert torch.equal(found, expected)
    assert str(Access(GradientOf(network, "float32"))) == f"with the gradient of float32 {fingerprint(network)}"


class Linear(nn.Module):
    """Two classes, whose logits are a linear function of the pixels and its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 36).view(1, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        margin = ((x - 0.5) * self.weight).flatten(1).sum(1, keepdim=True)
        return torch.cat([margin, -margin], 1)


def test_it_breaks_exactly_the_images_whose_margin_is_below_the_largest_change(tmp_path: Path) -> None:
    """In l∞ the margin falls by at most the radius times the sum of all |weights|, also where logits are rounded."""
    network = Linear().eval()
    x = 0.3 + 0.4 * torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        margins, y = network(x).max(1)
    limit = float(margins.sort().values[19:21].mean())
    radius = limit / float(network.weight.detach().abs().sum())
    box = BlackBox(lambda x: network(torch.from_numpy(x)) * 3 // 1e-4, classes=2, name="floor")
    models = [EvaluatedModel("float", network), EvaluatedModel("floor", box)]
    results = evaluate(models, (x, y), float_gradient(Linf(radius), network, "float32"), folder=tmp_path)
    worst = {result.classifier: result.accuracy for result in results if result.attack == "worst"}
    assert worst == {"float": 0.5, "floor": 0.5}  # the name does not say (black box): its attacker has a gradient
    trials = {json.loads(line)["trial"] for line in (tmp_path / "records.jsonl").read_text().splitlines()}
    told = f"[with the gradient of float32 {fingerprint(network)}]"
    assert len([trial for trial in trials if told in trial]) == 2
    assert len([trial for trial in trials if f"[transfer from float32 {fingerprint(network)}]" in trial]) == 1


def test_both_forms_of_a_model_are_measured_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained_classifier()
    monkeypatch.setattr(module, "onnx_classifier", lambda path: coarse(network))
    model = EvaluatedModel("cnn", network, defended=True, seen=True)
    results = int8_robustness(model, tmp_path / "int8.onnx", IMAGES, [Linf(0.1)], folder=tmp_path / "out")
    clean = {result.classifier: result.accuracy for result in results if result.attack == "none"}
    right = float((network(X).argmax(1) == Y).double().mean())
    assert clean == {"cnn float32": right, "cnn int8": float((coarse(network)(X).argmax(1) == Y).double().mean())}
    assert {result.attack for result in results} == {
        "none",
        "PGD-20 crafted on float32",
        "PGD-20 by float32 gradient",
        "PGD-20 margin by float32 gradient",
        "worst",
    }
    assert all(result.seen and result.defended and result.n == 24 for result in results)


def test_a_black_box_has_no_gradient_to_lend() -> None:
    box = coarse(classifier())
    with pytest.raises(InputError, match="surrogate float32 is a black box"):
        evaluate(EvaluatedModel("box", box), IMAGES, float_gradient(Linf(0.1), box, "float32"), allow_weak=True)
    with pytest.raises(InputError, match="box is a black box, and FGSM needs its gradient"):
        evaluate(EvaluatedModel("box", box), IMAGES, quick("Linf:0.1"), allow_weak=True)
