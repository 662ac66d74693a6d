from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forefend import data
from forefend.attacks.auto_pgd import APGD, misclassified, never, noise_at_radius, targeted_dlr
from forefend.attacks.base import State
from forefend.attacks.pgd import PGD, from_x
from forefend.checks import InputError
from forefend.losses import ce, dlr, margin
from forefend.models.classifiers.pretrained import load_weights
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

THREATS = pytest.mark.parametrize("threat", [Linf(0.06), L2(0.5)], ids=str)
DRAW = KeyedRNG(torch.arange(8))


@pytest.fixture
def doubles() -> Iterator[None]:
    """The other library uses the default dtype; in float64 no sign depends on rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small_network(classes: int = 6) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(512, classes))
    with torch.no_grad():
        net[3].weight.mul_(3)
    return net.requires_grad_(False)


def run(attack: APGD, f: Any, x: Tensor, target: Tensor) -> State:
    state = attack.begin(x, DRAW)
    for _ in range(attack.steps):
        state = attack.advance(f, state, x, target, rng=DRAW)
    return state


@THREATS
@pytest.mark.parametrize("loss", [ce, dlr])
def test_every_step_equals_the_authors_code(threat: ThreatModel, loss: Any, doubles: None) -> None:
    """From the same start: the same best loss and best image, the same lost images, for every image."""
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    f, x = small_network(), torch.rand(8, 3, 8, 8)
    y = f(x).argmax(1)
    y[0] = (y[0] + 1) % 6  # lost from the start
    threat = threat if loss is ce else type(threat)(threat.radius / 4)  # so that some images stand
    begun = noise_at_radius(threat, x, DRAW)
    theirs = autopgd.APGDAttack(f, n_iter=100, norm=threat.norm, eps=threat.radius, loss=loss.__name__)
    theirs.init_hyperparam(x)
    x_best, standing, best, x_lost = theirs.attack_single_run(x, y, x_init=begun)

    ours = run(APGD(threat, 101, loss), f, x, y)
    torch.testing.assert_close(ours["best"], best, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(ours["x_best"], x_best, atol=1e-7, rtol=0)
    assert torch.equal(ours["is_adv"], ~standing.bool())
    torch.testing.assert_close(ours["x_success"][ours["is_adv"]], x_lost[ours["is_adv"]], atol=1e-7, rtol=0)


def test_targeted_attack_equals_the_authors_code(doubles: None) -> None:
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    f, x = small_network(), torch.rand(8, 3, 8, 8)
    pairs = f(x).topk(3, dim=1).indices[:, [0, 2]]
    threat = Linf(0.02)
    theirs = autopgd.APGDAttack_targeted(f, n_iter=50, norm="Linf", eps=0.02)
    theirs.init_hyperparam(x)
    theirs.y_target = pairs[:, 1]
    x_best, standing, best, _ = theirs.attack_single_run(x, pairs[:, 0], x_init=noise_at_radius(threat, x, DRAW))
    ours = run(APGD(threat, 51, targeted_dlr), f, x, pairs)
    torch.testing.assert_close(ours["best"], best, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(ours["x_best"], x_best, atol=1e-7, rtol=0)
    assert torch.equal(ours["is_adv"], ~standing.bool())


def published(root: Path, count: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A published robust MNIST classifier, and images that it classifies correctly."""
    file = root / "classifiers" / "fastat-mnist-fgsm-robust.pth"
    f = load_weights("fastat", file, mean=0, std=1, channels=1, size=28).eval().requires_grad_(False)
    images = data.load("mnist", split="test", data_dir=root)
    x, y, _ = images.batch(torch.arange(count + 10))
    right = f(x).argmax(1) == y
    return f, x[right][:count], y[right][:count]


@pytest.mark.parametrize(("count", "iterations"), [(25, 40), pytest.param(100, 100, marks=pytest.mark.slow)])
def test_robust_classifier_fails_on_the_same_images(real_data: Path, count: int, iterations: int) -> None:
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    f, x, y = published(real_data, count)
    threat, rng = Linf(0.3), KeyedRNG(torch.arange(count))
    theirs = autopgd.APGDAttack(f, n_iter=iterations, norm="Linf", eps=0.3, loss="dlr")
    theirs.init_hyperparam(x)
    _, standing, _, _ = theirs.attack_single_run(x, y, x_init=noise_at_radius(threat, x, rng))
    x_adv = APGD(threat, iterations + 1, dlr)(f, x, y, rng=rng)
    assert threat.allows(x_adv, x).all()
    assert torch.equal(f(x_adv).argmax(1) == y, standing.bool())
    assert 0 < standing.sum() < count


@THREATS
@pytest.mark.parametrize("loss", [ce, margin])
@pytest.mark.parametrize("start", [noise_at_radius, from_x])
def test_the_optimum_of_a_binary_linear_classifier_is_reached(threat: ThreatModel, loss: Any, start: Any) -> None:
    layer = nn.Linear(48, 2).double()
    x, y = 0.3 + 0.4 * torch.rand(6, 3, 4, 4, dtype=torch.float64), torch.arange(6) % 2
    uphill = (layer.weight[1 - y] - layer.weight[y]).detach().view(-1, 3, 4, 4)
    best = x + threat.step(uphill, threat.radius)
    assert ((best > 0) & (best < 1)).all()
    attack = APGD(threat, 60, loss, start, never)
    x_adv = attack(nn.Sequential(nn.Flatten(), layer), x, y, rng=KeyedRNG(torch.arange(6)))
    torch.testing.assert_close(x_adv, best, atol=1e-4 if isinstance(threat, L2) else 1e-9, rtol=0)


def test_apgd_beats_pgd_with_equal_gradients() -> None:
    f, x = small_network().double(), torch.rand(8, 3, 8, 8, dtype=torch.float64)
    y, threat = f(x).argmax(1), Linf(0.06)
    loss = [ce(f(a(f, x, y, rng=DRAW)), y) for a in (APGD(threat, 40, is_adv=never), PGD(threat, 40, 0.06 / 4))]
    assert loss[0].mean() > loss[1].mean()


def test_checkpoints_are_the_papers() -> None:
    """Where the loss never rises each checkpoint halves the step: at 22, 41, … 99 % of the way, section 3.1."""
    attack = APGD(Linf(0.1), 101)
    x, rng = torch.full((2, 1, 2, 2), 0.5), KeyedRNG(torch.arange(2))
    state, halved = attack.begin(x, rng), []
    for move in range(101):
        before = state["size"]
        state = attack.advance(lambda x: x.flatten(1) * 0, state, x, torch.zeros(2, dtype=torch.int64), rng=rng)
        if (state["size"] < before).all():
            torch.testing.assert_close(state["size"], before / 2)
            halved.append(move)
    assert halved == [22, 41, 57, 70, 80, 87, 93, 99]
    torch.testing.assert_close(attack.begin(x, rng)["size"], torch.full((2,), 0.2))


@pytest.mark.parametrize(("rising", "halved"), [(16, True), (17, False)])
def test_step_halves_below_three_rises_in_four(rising: int, halved: bool) -> None:
    """Of the 22 moves to the first checkpoint; the first is compared with zero, and so counts here."""
    heights = iter([5.0] + [4.0 + move for move in range(rising)] + [0.0] * (22 - rising))
    x, rng = torch.full((1, 1, 2, 2), 0.5), KeyedRNG(torch.arange(1))
    attack = APGD(Linf(0.1), 101, lambda output, target: output, is_adv=never)
    state = attack.begin(x, rng)
    for _ in range(23):
        height = next(heights)
        state = attack.advance(lambda x, h=height: h + 0 * x.sum((1, 2, 3)), state, x, None, rng=rng)
    assert float(state["size"]) == pytest.approx(0.1 if halved else 0.2)


def brightness(x: Tensor) -> Tensor:
    """Two logits; the image is of class 1 where it is brighter than 0.5."""
    return torch.stack([torch.zeros(len(x)), x.mean((1, 2, 3)) - 0.5], dim=1)


def darkness(logits: Tensor, y: Tensor) -> Tensor:
    return -logits[:, 1]


def test_result_prefers_adversarial_to_higher_loss() -> None:
    x, y = torch.full((2, 1, 2, 2), 0.45), torch.zeros(2, dtype=torch.int64)
    bright = APGD(Linf(0.1), 20, darkness, start=lambda threat, x, rng: x + 0.1)
    x_adv = bright(brightness, x, y, rng=DRAW)
    assert (brightness(x_adv).argmax(1) != y).all()
    torch.testing.assert_close(replace(bright, is_adv=never)(brightness, x, y, rng=DRAW), x - 0.1)


def test_misclassified_uses_the_label_of_a_pair() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.0, 1.0, 0.5, 2.0]])
    assert misclassified(logits, torch.tensor([0, 1])).tolist() == [False, True]
    assert misclassified(logits, torch.tensor([[0, 3], [3, 1]])).tolist() == [False, False]


def test_targeted_dlr_is_eq_7() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0, -5.0]])
    # (z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2) = (0 − 3) / (3 − (0 − 1) / 2)
    torch.testing.assert_close(targeted_dlr(logits, torch.tensor([[0, 2]])), torch.tensor([-3 / 3.5]))
    torch.testing.assert_close(targeted_dlr(7 * logits + 2, torch.tensor([[0, 2]])), torch.tensor([-3 / 3.5]))


def test_noise_at_radius_reaches_the_radius() -> None:
    x = torch.full((5, 3, 8, 8), 0.5)
    start = noise_at_radius(Linf(0.1), x, KeyedRNG(torch.arange(5)))
    torch.testing.assert_close(Linf(0.1).distance(start, x), torch.full((5,), 0.1).double())
    assert torch.equal(
        noise_at_radius(L2(0.1), x, DRAW.select(torch.arange(5))), L2(0.1).noise(x, KeyedRNG(torch.arange(5)))
    )


def test_radius_per_image_is_supported() -> None:
    f, x = small_network(), torch.rand(3, 3, 8, 8)
    y, each = f(x).argmax(1), torch.tensor([0.02, 0.05, 0.1])
    together = APGD(Linf(each), 12)(f, x, y, rng=KeyedRNG(torch.arange(3)))
    for i in range(3):
        alone = APGD(Linf(float(each[i])), 12)(f, x[i : i + 1], y[i : i + 1], rng=KeyedRNG(torch.tensor([i])))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=0)


def test_apgd_with_one_step_raises() -> None:
    with pytest.raises(InputError, match=r"1 steps.*at least 2"):
        APGD(Linf(0.1), 1)
