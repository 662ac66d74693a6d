"""Attacks of other libraries on a defended classifier: optima that are known, and the images that our PGD finds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from helpers.vision_libraries import vision_library
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from forefend.attacks.base import input_gradient
from forefend.attacks.pgd import PGD, from_x
from forefend.losses import ce
from forefend.models import preprocessors
from forefend.models.defended import Defended
from forefend.models.freezing import frozen
from forefend.models.guide import Guide
from forefend.threat_models.lp import Linf

EPS, STEP, STEPS = 0.1, 0.02, 10
OURS = PGD(Linf(EPS), STEPS, STEP, start=from_x)
Library = Callable[[Defended, Tensor, Tensor], Tensor]


def library(name: str) -> Any:
    """Import a library; skip the test where it is missing."""
    if name in ("torchattacks", "art"):  # they import torchvision
        vision_library("torchvision")
    with warnings.catch_warnings():  # of foolbox alone, which secmlt imports
        warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
        return pytest.importorskip(name, reason="the extra interop is not installed")


def foolbox(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    foolbox = library("foolbox")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=STEPS, random_start=False)
    criterion = foolbox.criteria.Misclassification(y)
    return attack.run(foolbox.PyTorchModel(model, bounds=(0, 1)), x, criterion, epsilon=EPS)


def torchattacks(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    attack = library("torchattacks").PGD(model, eps=EPS, alpha=STEP, steps=STEPS, random_start=False)
    return attack(x, y)


def art(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    return _art_pgd(art_classifier(model, x), x, y)


def art_preprocessor(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    """The defense as a preprocessing defense of ART, in front of the bare classifier."""
    return _art_pgd(art_classifier(model.classifier.classifier, x, [as_preprocessor(model.defense)]), x, y)


def secml_torch(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    """It returns the iterate of the highest loss, and leaves out the one after the last step."""
    pgd, network = library("secmlt.adv.evasion.pgd"), library("secmlt.models.pytorch.base_pytorch_nn")
    attack = pgd.PGD("linf", EPS, STEPS + 1, STEP, random_start=False, backend="native")
    batches = attack(network.BasePyTorchClassifier(model), DataLoader(TensorDataset(x, y), batch_size=len(x)))
    return torch.cat([x_adv for x_adv, _ in batches])


def art_classifier(network: nn.Module, x: Tensor, defenses: list[Any] | None = None) -> Any:
    library("art")
    with torch.no_grad():
        classes = network(x).shape[1]
    return import_module("art.estimators.classification").PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(reduction="sum"),
        tuple(x.shape[1:]),
        classes,
        clip_values=(0.0, 1.0),
        preprocessing_defences=defenses,
        device_type="cpu",
    )


def as_preprocessor(defense: nn.Module) -> Any:
    base: Any = import_module("art.defences.preprocessor.preprocessor").PreprocessorPyTorch

    class Preprocessor(base):
        def __init__(self) -> None:
            super().__init__(device_type="cpu", is_fitted=True, apply_fit=False, apply_predict=True)

        def forward(self, x: Tensor, y: Any = None) -> tuple[Tensor, Any]:
            return defense(x), y

    return Preprocessor()


def _art_pgd(classifier: Any, x: Tensor, y: Tensor) -> Tensor:
    attack = import_module("art.attacks.evasion").ProjectedGradientDescentPyTorch(
        classifier, norm=np.inf, eps=EPS, eps_step=STEP, max_iter=STEPS, batch_size=len(x), verbose=False
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


LIBRARIES: dict[str, Library] = {
    "foolbox": foolbox,
    "torchattacks": torchattacks,
    "art": art,
    "art-preprocessor": art_preprocessor,
    "secml-torch": secml_torch,
}
EACH = pytest.mark.parametrize("attack", LIBRARIES.values(), ids=LIBRARIES)


@EACH
def test_pgd_of_a_library_reaches_the_optimum_of_a_linear_classifier(
    attack: Library, linear: Defended, images: Tensor
) -> None:
    x = 0.2 + 0.6 * images  # a step to the border of the ball leaves no pixel outside [0, 1]
    y = torch.arange(8) % 2
    weight = linear.classifier.classifier[1].weight.detach()
    optimum = x - EPS * (weight[y] - weight[1 - y]).sign().view_as(x)
    torch.testing.assert_close(attack(linear, x, y), optimum, atol=1e-6, rtol=0)


@EACH
def test_pgd_of_a_library_finds_the_images_of_ours_and_changes_no_classifier(
    attack: Library, model: Defended, given: nn.Module, images: Tensor
) -> None:
    y = model(images).argmax(1)
    before = Guide(given).state_digest()
    expected = best_iterate(model, images, y) if attack is secml_torch else OURS(model, images, y)
    torch.testing.assert_close(attack(model, images, y), expected, atol=1e-6, rtol=0)
    assert Guide(given).state_digest() == before
    oblivious = OURS(frozen(given), images, y)  # what an attack without the defense's gradient would find
    assert ((oblivious - expected).abs() > STEP / 2).float().mean() > 0.1


def best_iterate(model: Defended, x: Tensor, y: Tensor) -> Tensor:
    """The iterate of our PGD with the highest loss."""
    iterates = torch.stack([x, *(PGD(Linf(EPS), n, STEP, start=from_x)(model, x, y) for n in range(1, STEPS + 1))])
    with torch.no_grad():
        losses = torch.stack([ce(model(x_adv), y) for x_adv in iterates])
    return iterates[losses.argmax(0), torch.arange(len(x))]


def test_gradients_of_art_are_those_of_autograd_also_through_a_preprocessor(model: Defended, images: Tensor) -> None:
    y = model(images).argmax(1)
    expected = input_gradient(model, images, y, ce)
    preprocessor = art_classifier(model.classifier.classifier, images, [as_preprocessor(model.defense)])
    for classifier in (art_classifier(model, images), preprocessor):
        found = torch.from_numpy(classifier.loss_gradient(images.numpy(), np.eye(10, dtype=np.float32)[y]))
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-5)
        torch.testing.assert_close(torch.from_numpy(classifier.predict(images.numpy())), model(images).detach())


def test_autoattack_breaks_exactly_what_can_be_broken_of_a_linear_classifier(images: Tensor) -> None:
    """Inside the ball the margin to a class falls by the radius times the l1 norm of the difference of its weights."""
    pyautoattack = pytest.importorskip("pyautoattack", reason="the extra eval is not installed")
    layer = nn.Linear(64, 10)
    model = Defended(preprocessors.build("identity", channels=1), nn.Sequential(nn.Flatten(), layer)).eval()
    x = 0.2 + 0.6 * images
    with torch.no_grad():
        top, y = model(x).max(1)
        radii = (top[:, None] - model(x)) / (layer.weight[y][:, None] - layer.weight).abs().sum(2)
    needed = radii.scatter(1, y[:, None], torch.inf).amin(1)
    radius = float(needed.sort().values[3:5].mean())  # enough for half of the images
    attack = pyautoattack.AutoAttack(model, eps=radius, attacks=["apgd-ce", "apgd-t"], version="custom", seed=0)
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=8)
    assert Linf(radius).allows(x_adv, x).all()
    assert torch.equal(model(x_adv).argmax(1) == y, needed > radius)
