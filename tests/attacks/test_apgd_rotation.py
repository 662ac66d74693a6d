"""APGD in turn: exact on linear models, and each run's own loss, length and target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.toy_networks import CLASSES, classifier, toy_images
from torch import Tensor, nn

from forefend.attacks import apgd_rotation
from forefend.attacks.apgd_rotation import APGDRotation, targeted_margin
from forefend.attacks.base import at_step
from forefend.checks import InputError
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf


class Linear(nn.Module):
    """Logits of gray images that no attack of these radii can push to the edge of [0, 1]."""

    def __init__(self, classes: int, seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, 16, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T


def smallest_radius(network: Linear, x: Tensor, y: int, norm: str) -> float:
    """The exact distance of an image from the nearest other class."""
    logits, weight = network(x)[0].detach(), network.weight.detach()
    others = [k for k in range(len(weight)) if k != y]
    order = 1 if norm == "Linf" else 2
    return min(float((logits[y] - logits[k]) / (weight[y] - weight[k]).norm(order)) for k in others)


@pytest.mark.parametrize("norm", [Linf, L2])
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_rotation_breaks_a_linear_model_beyond_the_smallest_radius_only(norm: Any, classes: int) -> None:
    network = Linear(classes)
    x = 0.5 + 0.05 * torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = network(x).argmax(1)
    for row in range(len(x)):
        radius = smallest_radius(network, x[row : row + 1], int(y[row]), norm.__name__)
        for factor, breaks in ((1.02, True), (0.98, False)):
            attack = APGDRotation(norm(factor * radius), classes, (15,), 2)
            x_adv = attack(network, x[row : row + 1], y[row : row + 1])
            assert bool(network(x_adv).argmax(1) != y[row]) == breaks


def test_runs_have_their_own_loss_length_start_and_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    for name in ("_ce", "targeted_margin", "_probability_margin", "_dlr"):
        given = getattr(apgd_rotation, name)

        def spying(logits: Tensor, y: Tensor, wanted: Tensor, name: str = name, given: Any = given) -> Tensor:
            asked.append((name, int(wanted[0])))
            return given(logits, y, wanted)

        monkeypatch.setattr(apgd_rotation, name, spying)
    attack = APGDRotation(Linf(0.001), CLASSES, (3, 2), 8)
    x, y, _ = toy_images(1).batch(torch.arange(1))
    attack(classifier(), x, y)
    names = ["_ce", "targeted_margin", "_ce", "_probability_margin", "_ce", "_dlr"]
    assert [name for name, _ in asked] == [names[run % 6] for run in range(16) for _ in range((3, 2)[run % 2])]
    targets = [wanted for name, wanted in asked if name == "targeted_margin"][::2]
    assert len(set(targets)) == CLASSES - 1  # each other class once
    assert int(y) not in targets


def test_rotation_returns_the_iterate_of_largest_margin() -> None:
    attack, (x, y, _) = APGDRotation(Linf(0.05), CLASSES, (5,), 3), toy_images(20).batch(torch.arange(20))
    found: list[Tensor] = []

    def f(images: Tensor) -> Tensor:
        logits = classifier()(images)
        found.append(targeted_margin(logits.detach(), y, logits.scatter(1, y[:, None], -torch.inf).argmax(1)))
        return logits

    x_adv = attack(f, x, y)
    f(x_adv)
    assert torch.allclose(found[-1], torch.stack(found[:-1]).amax(0), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_rotation_with_few_classes_has_a_gradient_in_every_run(classes: int) -> None:
    network, attack = Linear(classes), APGDRotation(Linf(1e-4), classes, (4,), 6)
    x = torch.full((3, 1, 4, 4), 0.5)
    x += 0.05 * torch.rand(x.shape, generator=torch.Generator().manual_seed(2))
    y = network(x).argmax(1)
    state, rng = attack.begin(x, KeyedRNG(torch.arange(3))), KeyedRNG(torch.arange(3))
    for step in range(attack.steps):
        state = attack.advance(network, state, x, y, rng=at_step(rng, attack, step))
        if step % 4 != 3:  # a run that has ended leaves no gradient
            assert bool((state["best_gradient"].flatten(1).norm(dim=1) > 0).all())
    assert "dlr" not in str(APGDRotation(Linf(0.01), 2))


@pytest.mark.parametrize("settings", [{"classes": 1}, {"lengths": ()}, {"lengths": (20, 1)}, {"repeats": 0}], ids=str)
def test_rotation_without_a_step_or_a_class_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give at least"):
        APGDRotation("Linf:0.1", **settings)


def test_rotation_for_other_classes_is_refused() -> None:
    x, y, _ = toy_images(2).batch(torch.arange(2))
    with pytest.raises(InputError, match=r"returns shape \(2, 4\), expected \(2, 10\)"):
        APGDRotation("Linf:0.1")(classifier(), x, y)
