from __future__ import annotations

import logging
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier as toy_classifier
from helpers.toy_networks import held, toy_images, untouched
from torch import Tensor, nn

from forefend.attacks.autoattack import AutoAttack, _can_tile, flags
from forefend.checks import InputError
from forefend.evaluation import evaluate
from forefend.evaluation.trial import Trial
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

pyautoattack = pytest.importorskip("pyautoattack", reason="the extra eval is not installed")

NORMS = pytest.mark.parametrize("norm", [Linf, L2])
SIDE = 6


def draw_for(x: Tensor, seed: int = 0) -> KeyedRNG:
    return KeyedRNG(torch.arange(len(x)), seed)


def images(count: int, low: float = 0.3, high: float = 0.7) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(count))


def linear(classes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, classes)).eval()


def convolutional(classes: int) -> nn.Sequential:
    """Curved enough that each of the attacks has something to do."""
    torch.manual_seed(3)
    body = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten())
    return nn.Sequential(*body, nn.Linear(4 * (SIDE - 2) ** 2, classes)).eval()


def labels(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x).argmax(1)


def exact_radii(net: nn.Sequential, x: Tensor, y: Tensor, norm: type[ThreatModel]) -> Tensor:
    """How far each image lies from the nearest boundary of a linear classifier, where the pixel box is far away."""
    weight, logits = net[1].weight.detach(), net(x).detach()
    normals = (weight[y][:, None] - weight[None]).norm(p=1 if norm is Linf else 2, dim=-1)
    margins = logits.gather(1, y[:, None]) - logits
    return (margins / normals).nan_to_num(nan=torch.inf).amin(1)


def by_hand(net: Any, x: Tensor, y: Tensor, attack: AutoAttack, seed: int = 0) -> Tensor:
    """A user's direct call of pyautoattack, with Square's budget and what few classes need, if they are few."""
    version = "custom" if attack.classes == 3 and attack.version == "standard" else attack.version
    custom = ["apgd-ce", "apgd-dlr", "fab-t", "square"] if version == "custom" else None
    norm, eps = attack.threat.norm, attack.threat.radius
    direct = pyautoattack.AutoAttack(net, attacks=custom, norm=norm, eps=eps, seed=seed, version=version)
    direct.square.n_queries = attack.queries
    direct.apgd_targeted.n_target_classes = min(9, attack.classes - 1)
    direct.fab.n_target_classes = min(9, attack.classes - 1)
    if version == "custom":
        direct.apgd.n_restarts = direct.fab.n_restarts = 1
    x_adv, _ = direct.run_standard_evaluation(x, y, batch_size=len(x))
    return x_adv


@pytest.mark.parametrize(
    ("classes", "listed"),
    [
        (2, "apgd-ce + fab-t x1 + square 5000"),
        (3, "apgd-ce + apgd-dlr + fab-t x2 + square 5000"),
        (4, "apgd-ce + apgd-t x3 + fab-t x3 + square 5000"),
        (9, "apgd-ce + apgd-t x8 + fab-t x8 + square 5000"),
        (10, "apgd-ce + apgd-t x9 + fab-t x9 + square 5000"),
        (1000, "apgd-ce + apgd-t x9 + fab-t x9 + square 5000"),
    ],
)
def test_the_record_says_which_attacks_the_classes_allowed(classes: int, listed: str) -> None:
    assert str(AutoAttack(Linf("8/255"), classes)) == f"AutoAttack-standard(Linf:8/255, {listed})"


def test_record_flags_a_randomized_pipeline() -> None:
    assert str(AutoAttack(L2(0.5), 10, "rand")) == "AutoAttack-rand(L2:0.5, apgd-ce + apgd-dlr, eot 20)"
    assert str(AutoAttack(L2(0.5), 2, "rand")) == "AutoAttack-rand(L2:0.5, apgd-ce, eot 20)"


@pytest.mark.parametrize(
    ("classes", "norm"),
    [
        *((classes, norm) for classes in (2, 3, 4) for norm in (Linf, L2)),
        (10, Linf),
        pytest.param(10, L2, marks=pytest.mark.slow),
    ],
)
def test_autoattack_on_a_linear_classifier_is_exact(classes: int, norm: type[ThreatModel]) -> None:
    net, x = linear(classes), images(12)
    y = labels(net, x)
    radii = exact_radii(net, x, y, norm)
    threat = norm(float(radii.quantile(0.5)))  # type: ignore[call-arg]
    clear = (radii / threat.radius - 1).abs() > 0.01
    with flags() as found:
        x_adv = AutoAttack(threat, classes, queries=20)(net, x, y, rng=draw_for(x))
    lost = labels(net, x_adv) != y
    assert clear.sum() >= 10
    assert torch.equal(lost[clear], (radii < threat.radius)[clear])
    assert bool(threat.allows(x_adv, x).all())
    assert torch.equal(x_adv[~lost], x[~lost])
    assert not [sentence for sentence in found if "class" in sentence]


@pytest.mark.parametrize(
    ("classes", "norm"),
    [(3, L2), (4, Linf), *(pytest.param(10, norm, marks=pytest.mark.slow) for norm in (Linf, L2))],
)
def test_autoattack_equals_a_direct_call_bit_for_bit(classes: int, norm: type[ThreatModel]) -> None:
    net, x, y = convolutional(classes), images(6, 0, 1), torch.arange(6) % 3
    attack = AutoAttack(norm(0.15 if norm is Linf else 0.6), classes, queries=60)  # type: ignore[call-arg]
    y[:5] = labels(net, x)[:5]
    kept = x.clone(), y.clone()
    moved = 0
    for part in torch.arange(6).split(4):
        x_adv = attack(net, x[part], y[part], rng=draw_for(part, seed=7))
        assert torch.equal(x_adv, by_hand(net, x[part], y[part], attack, seed=7))
        moved += int((x_adv != x[part]).flatten(1).any(1).sum())
    assert 0 < moved < 6
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])


class Noisy(nn.Module):
    def __init__(self, net: nn.Module, scale: float = 0.05) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.scale * torch.randn_like(x))


def test_rand_version_repeats_with_equal_seed() -> None:
    x = images(16)
    net = Noisy(linear(3), 2.0)  # so that chance decides which images are right to begin with
    y = labels(net.net, x)
    attack = AutoAttack(L2(1), 3, "rand")
    state = torch.get_rng_state()
    x_adv = attack(net, x, y, rng=draw_for(x, seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(x_adv, by_hand(net, x, y, attack, seed=5))


def test_seed_determines_the_result_and_torch_is_restored() -> None:
    net, x = convolutional(2), images(4, 0, 1)
    y = labels(net, x)
    attack = AutoAttack(L2(1), 2, queries=5)
    state = torch.get_rng_state()
    first, again, other = (attack(net, x, y, rng=draw_for(x, seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(attack(net, x, y, rng=draw_for(x).fold_in(restart=1)), other)


@pytest.mark.parametrize("count", [1, 2])
@NORMS
def test_small_batches_of_every_outcome_work(count: int, norm: type[ThreatModel]) -> None:
    net, x = linear(2), images(count)
    y = labels(net, x)
    radii = exact_radii(net, x, y, norm)
    near, far = (norm(float(radius)) for radius in (0.9 * radii.min(), 1.1 * radii.max()))  # type: ignore[call-arg]
    stands = AutoAttack(near, 2, queries=20)(net, x, y, rng=draw_for(x))
    assert torch.equal(stands, x)
    assert bool((labels(net, AutoAttack(far, 2, queries=20)(net, x, y, rng=draw_for(x))) != y).all())
    assert torch.equal(AutoAttack(far, 2)(net, x, 1 - y, rng=draw_for(x)), x)


class Counted(nn.Module):
    """A robust classifier with a gradient that counts its forward and backward passes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.bias = torch.linspace(0, 1, classes) - 5.0 * (torch.arange(classes) > 0)

    def forward(self, x: Tensor) -> Tensor:
        self.counts["forwards"] += 1
        logits = 0.01 * x.flatten(1)[:, : len(self.bias)] + self.bias
        if logits.requires_grad:
            logits.register_hook(lambda gradient: self.counts.update(gradients=1))
        return logits


@pytest.mark.parametrize(("classes", "version"), [(2, "standard"), (3, "standard"), (5, "standard"), (3, "rand")])
def test_cost_equals_that_of_a_robust_image(classes: int, version: Any) -> None:
    net, x = Counted(classes), images(1)
    attack = AutoAttack(Linf(0.1), classes, version, queries=30)
    attack(net, x, torch.tensor([0]), rng=draw_for(x))
    assert net.counts == {"gradients": attack.steps, "forwards": attack.forwards}


def test_the_cost_of_the_ten_class_ensemble() -> None:
    attack = AutoAttack(Linf(0.1), 10)
    assert (attack.steps, attack.forwards) == (101 + 9 * 101 + 9 * 100, 7864)
    assert Trial("AutoAttack", attack, attack.threat).gradients() == 1910


def test_autoattack_is_silent_and_restores_the_logger(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("auto-attack")
    before = logger.level, logger.propagate, list(logger.handlers)
    net, x = linear(2), images(2)
    AutoAttack(Linf(0.1), 2, queries=5)(Noisy(net), x, labels(net, x), rng=draw_for(x))
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
    assert before == (logger.level, logger.propagate, logger.handlers)


class Dynamic(nn.Module):
    """Takes a gradient on its way, as pipelines do that optimize at test time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x.detach().requires_grad_()
            torch.autograd.grad((z * z).sum(), z)
        return self.net(x)


@pytest.mark.parametrize(
    ("wrap", "word"),
    [
        (Noisy, "randomized"),
        (lambda net: nn.Sequential(net, nn.Softmax(1)), "probability distribution"),
        (Dynamic, "dynamic"),
        (lambda net: net, None),  # after the dynamic one: its flag must not stick
    ],
)
def test_flags_collects_the_warnings(wrap: Any, word: str | None) -> None:
    net, x = linear(2), images(2)
    attack = AutoAttack(Linf(1e-6), 2, queries=5)
    with flags() as outer, flags() as inner:
        for _ in range(2):
            attack(wrap(net), x, labels(net, x), rng=draw_for(x))
    assert outer == inner
    assert len(outer) == (word is not None)
    assert all(word in sentence and "flags_doc" not in sentence for sentence in outer if word)


def test_tracing_is_restored() -> None:
    net, x = linear(2), images(1)
    before = sys.gettrace()

    def trace(*_: Any) -> None:
        return None

    sys.settrace(trace)
    try:
        AutoAttack(Linf(0.1), 2, queries=5)(net, x, labels(net, x), rng=draw_for(x))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


def test_classifier_behind_a_function_is_unchanged() -> None:
    net, x = convolutional(2).train(), images(3)
    net[1].eval()
    before = held(net)
    attack = AutoAttack(Linf(0.001), 2, queries=5)
    still = convolutional(2)
    attack(net, x, labels(still, x), rng=draw_for(x))
    attack(lambda x: still(x), x, labels(still, x), rng=draw_for(x))
    assert untouched(net, before)
    assert all(parameter.grad is None for parameter in (*net.parameters(), *still.parameters()))


def test_logits_of_the_pipeline_are_not_modified() -> None:
    net, x = linear(2), images(2)
    kept = []

    def keeps(x: Tensor) -> Tensor:
        kept.append(net(x))
        return kept[-1]

    AutoAttack(Linf(0.001), 2, queries=5)(keeps, x, labels(net, x), rng=draw_for(x))
    assert all(bool(logits.isfinite().all()) for logits in kept)


def test_tied_logits_leave_square_an_empty_batch() -> None:
    x = images(2)

    def tied(x: Tensor) -> Tensor:
        return (x.reshape(len(x), -1)[:, :2] > 2).float() + 0 * x.reshape(len(x), -1)[:, :2]

    y = torch.zeros(2, dtype=torch.int64)
    assert torch.equal(AutoAttack(Linf(0.1), 2, queries=5)(tied, x, y, rng=draw_for(x)), x)


def test_channels_last_images_give_the_same_result() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.rand(3, 3, SIDE, SIDE)
    y = labels(net, x)
    attack = AutoAttack(L2(0.3), 2, queries=5)
    x_adv = attack(net, x, y, rng=draw_for(x))
    assert torch.equal(attack(net, x.to(memory_format=torch.channels_last), y, rng=draw_for(x)), x_adv)


@pytest.mark.parametrize("height", [3, 4, 5, 9, 12, 13, 14, 18, 23, 24, 25, 28, 34])
@pytest.mark.parametrize("wider", [-2, 0, 1, 2])
def test_can_tile_predicts_the_error_of_square(height: int, wider: int) -> None:
    width = height + wider
    square = pyautoattack.square.SquareAttack(
        lambda x: torch.tensor([[1.0, 0.0]]).repeat(len(x), 1), norm="L2", n_queries=1, eps=0.5, seed=0, device="cpu"
    )
    try:
        square.perturb(torch.rand(2, 1, height, width), torch.tensor([0, 0]))
        worked = True
    except (RuntimeError, ZeroDivisionError):
        worked = False
    assert _can_tile(height, width) == worked


def test_evaluate_resumes_autoattack_by_batches(tmp_path: Any) -> None:
    threat = Linf(0.05)
    trial = Trial("AutoAttack", AutoAttack(threat, 4, queries=10), threat)
    net, test = toy_classifier(2), toy_images(8, split="test")
    cells = evaluate.evaluate(net, test, [trial], folder=tmp_path, batch_size=4, allow_weak=True)
    assert "AutoAttack-standard(Linf:0.05, apgd-ce + apgd-t x3 + fab-t x3 + square 10)" in (
        tmp_path / "records.jsonl"
    ).read_text(encoding="utf-8")
    assert evaluate.evaluate(net, test, [trial], folder=tmp_path, batch_size=4, allow_weak=True) == cells


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threat": Linf(torch.tensor([0.1, 0.2]))}, "Linf:per image.*one radius"),
        ({"threat": "Wasserstein:0.1"}, "Wasserstein.*give Linf or L2"),
        ({"classes": 1}, "1 classes.*at least 2"),
        ({"version": "plus"}, "no version of AutoAttack called 'plus'"),
        ({"queries": 0}, "0 queries"),
    ],
)
def test_bad_settings_raise(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AutoAttack(**{"threat": Linf(0.1), "classes": 10} | settings)


def test_missing_pyautoattack_raises_at_construction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(InputError, match=r"pip install 'forefend\[eval\]'"):
        AutoAttack(Linf(0.1), 10)


@pytest.mark.parametrize(
    ("threat", "classes", "x", "words"),
    [
        (Linf(0.1), 2, images(1).double(), "float32.*float64"),
        (L2(0.5), 2, torch.rand(1, 1, 14, 14), "14 × 14 images in L2"),
        (Linf(0.1), 10, images(1), r"\(1, 2\), expected \(1, 10\)"),
    ],
)
def test_unsupported_images_raise(threat: ThreatModel, classes: int, x: Tensor, words: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2)).to(x.dtype)
    with pytest.raises(InputError, match=words):
        AutoAttack(threat, classes)(net, x, torch.tensor([0]), rng=draw_for(x))


class InOwnPrecision(nn.Module):
    """A network that computes in another precision and returns logits of that precision for float32 images."""

    def __init__(self, dtype: torch.dtype, *, autocast: bool = False) -> None:
        super().__init__()
        self.autocast, self.dtype = autocast, dtype
        self.network = convolutional(4).to(torch.float32 if autocast else dtype)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits: Tensor = self.network(x if self.autocast else x.to(self.dtype))
            return logits


@pytest.mark.parametrize(
    "network",
    [InOwnPrecision(torch.float16), InOwnPrecision(torch.float64), InOwnPrecision(torch.bfloat16, autocast=True)],
    ids=["half", "double", "autocast"],
)
def test_logits_of_another_precision_are_accepted(network: InOwnPrecision) -> None:
    """FAB and Square write float32 numbers into the logits."""
    x, attack = images(4, 0.0, 1.0), AutoAttack("Linf:0.05", classes=4, queries=20)
    x_adv = attack(network, x, labels(network, x))
    assert x_adv.dtype is torch.float32
    assert attack.threat.allows(x_adv, x).all()
