from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forefend.attacks.base import input_gradient
from forefend.attacks.pgd import PGD, fgsm, from_x, noise_corner, random_start, small_noise
from forefend.checks import InputError
from forefend.losses import Mean, ce, margin
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

THREATS = pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5)], ids=str)
BATCHES = pytest.mark.parametrize("count", [1, 3, 8])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])
BASE = PGD(Linf("8/255"), steps=10, step_size=2 / 255)


def linear(channels: int, classes: int, seed: int = 0) -> nn.Linear:
    """A linear classifier on flattened 4 × 4 images, in float64 so that no sign depends on rounding."""
    torch.manual_seed(seed)
    return nn.Linear(channels * 16, classes).double()


def as_images(classifier: nn.Linear) -> nn.Module:
    return nn.Sequential(nn.Flatten(), classifier)


def images(count: int, channels: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return low + (high - low) * torch.rand(count, channels, 4, 4, generator=generator, dtype=torch.float64)


def draw_for(x: Tensor, seed: int = 0) -> KeyedRNG:
    return KeyedRNG(torch.arange(len(x)), seed)


def uphill(classifier: nn.Linear, y: Tensor, channels: int) -> Tensor:
    """The direction in which a two-class linear margin grows, one for each image."""
    return (classifier.weight[1 - y] - classifier.weight[y]).detach().view(-1, channels, 4, 4)


@BATCHES
@CHANNELS
@pytest.mark.parametrize("loss", [ce, margin])
@pytest.mark.parametrize("start", [from_x, random_start])
def test_linf_reaches_the_optimum_of_a_binary_linear_classifier(
    count: int, channels: int, loss: Any, start: Any
) -> None:
    classifier, x = linear(channels, 2), images(count, channels)
    y = torch.arange(count) % 2
    attack = PGD(Linf(0.1), 12, 0.05, loss=loss, start=start)
    best = (x + 0.1 * uphill(classifier, y, channels).sign()).clamp(0, 1)
    torch.testing.assert_close(attack(as_images(classifier), x, y, rng=draw_for(x)), best, atol=1e-9, rtol=0)
    torch.testing.assert_close(fgsm(Linf(0.1), loss)(as_images(classifier), x, y, rng=draw_for(x)), best)


@BATCHES
@CHANNELS
@pytest.mark.parametrize("start", [from_x, random_start])
def test_l2_reaches_the_optimum_of_a_binary_linear_classifier(count: int, channels: int, start: Any) -> None:
    classifier, x = linear(channels, 2), images(count, channels, 0.4, 0.6)
    y = torch.arange(count) % 2
    direction = uphill(classifier, y, channels)
    best = x + 0.3 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert ((best > 0) & (best < 1)).all()
    attack = PGD(L2(0.3), 60, 0.1, start=start)
    torch.testing.assert_close(attack(as_images(classifier), x, y, rng=draw_for(x)), best, atol=1e-6, rtol=0)
    torch.testing.assert_close(fgsm(L2(0.3))(as_images(classifier), x, y, rng=draw_for(x)), best)


@BATCHES
@THREATS
def test_pgd_on_a_multiclass_linear_model_is_optimal(count: int, threat: ThreatModel) -> None:
    classifier, x = linear(3, 5), images(count, 3, 0.3, 0.7)
    f, y = as_images(classifier), torch.arange(count) % 5
    x_adv = PGD(threat, 80, 0.05, loss=_against(4), start=from_x)(f, x, y, rng=draw_for(x))
    # Against one class the margin is linear: its largest value is the dual norm of the weights times the radius.
    weights = classifier.weight[4] - classifier.weight[y]
    dual = weights.abs().sum(1) if isinstance(threat, Linf) else weights.norm(dim=1)
    optimum = _against(4)(f(x), y) + threat.radius * dual
    torch.testing.assert_close(_against(4)(f(x_adv), y), optimum, atol=1e-6, rtol=0)


def _against(rival: int) -> Callable[[Tensor, Tensor], Tensor]:
    def rivalry(logits: Tensor, y: Tensor) -> Tensor:
        return logits[:, rival] - logits.gather(1, y[:, None]).squeeze(1)

    return rivalry


@THREATS
def test_a_negated_loss_targets_a_class(threat: ThreatModel) -> None:
    f, x = as_images(linear(3, 5)), images(8, 3)
    wanted = (f(x).argmax(1) + 1) % 5

    def negative_squared_distance(logits: Tensor, y: Tensor) -> Tensor:
        return -ce(logits, y)

    attack = PGD(threat, 40, threat.radius / 8, loss=negative_squared_distance)
    x_adv = attack(f, x, wanted, rng=draw_for(x))
    assert threat.allows(x_adv, x).all()
    assert (ce(f(x_adv), wanted) < ce(f(x), wanted)).all()
    assert (f(x_adv).argmax(1) == wanted).sum() > (f(x).argmax(1) == wanted).sum()


@THREATS
@BATCHES
@CHANNELS
@pytest.mark.parametrize("start", [from_x, random_start])
def test_images_stay_inside_the_threat_model(threat: ThreatModel, count: int, channels: int, start: Any) -> None:
    x = images(count, channels).float()
    x[:, :, 0], x[:, :, 1] = 0, 1
    f = as_images(linear(channels, 3).float())
    for steps, size in [(1, 10.0), (7, threat.radius / 3)]:
        attack = PGD(threat, steps, size, start=start)
        x_adv = attack(f, x, torch.zeros(count, dtype=torch.int64), rng=draw_for(x))
        assert threat.allows(x_adv, x).all()
        assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
        assert (threat.distance(x_adv, x) > 0).all()


@THREATS
def test_radius_per_image_is_supported(threat: ThreatModel) -> None:
    f, x = as_images(linear(3, 3)), images(4, 3)
    y, each = f(x).argmax(1), torch.tensor([0.0, 0.05, 0.1, 0.2], dtype=torch.float64)
    attacks = [fgsm, lambda threat: PGD(threat, 5, 0.05)]
    for make in attacks:
        together = make(type(threat)(each))(f, x, y, rng=draw_for(x))
        for i in range(4):
            alone = make(type(threat)(float(each[i])))
            got = alone(f, x[i : i + 1], y[i : i + 1], rng=KeyedRNG(torch.tensor([i])))
            torch.testing.assert_close(together[i : i + 1], got)


@THREATS
def test_attack_restores_the_network(threat: ThreatModel, net: nn.Module, x: Tensor, y: Tensor) -> None:
    list(net.parameters())[1].requires_grad = False
    net[1].training = False
    before = copy.deepcopy(net)
    PGD(threat, 3, 0.05)(net, x, y, rng=draw_for(x))
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in before.parameters()]
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    for mine, its in zip(net.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(mine, its)


def test_a_network_in_train_mode_is_attacked_in_eval_mode(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack = PGD(Linf(0.1), 3, 0.05)
    x_adv = attack(net.train(), x, y, rng=draw_for(x))
    assert torch.equal(attack(net.eval(), x, y, rng=draw_for(x)), x_adv)


def test_collected_gradients_survive_an_attack(net: nn.Module, x: Tensor, y: Tensor) -> None:
    F.cross_entropy(net(x), y).backward()
    before = [parameter.grad.clone() for parameter in net.parameters()]
    PGD(Linf(0.1), 2, 0.05)(net, x, y, rng=draw_for(x))
    PGD(Linf(0.1), 2, 0.05)(lambda batch: net(batch), x, y, rng=draw_for(x))
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), before, strict=True))


def test_attack_restores_a_failing_network(net: nn.Module, x: Tensor, y: Tensor) -> None:
    with pytest.raises(RuntimeError):
        PGD(Linf(0.1), 2, 0.05)(net, x[:, :2], y, rng=draw_for(x))
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_attack_under_no_grad_requires_no_image_gradient(net: nn.Module, x: Tensor, y: Tensor) -> None:
    attack, before = PGD(Linf(0.1), 2, 0.05), x.clone()
    with torch.no_grad():
        x_adv = attack(net, x, y, rng=draw_for(x))
    assert torch.equal(x_adv, attack(net, x, y, rng=draw_for(x)))
    assert torch.equal(x, before)
    assert not x.requires_grad


@THREATS
def test_result_of_an_image_is_independent_of_its_batch(threat: ThreatModel, net: nn.Module, y: Tensor) -> None:
    net.double().eval()
    x = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    attack, rng = PGD(threat, 5, 0.03), KeyedRNG(torch.tensor([40, 3, 17, 0, 2, 9]), seed=1)
    whole = attack(net, x, y, rng=rng)
    for rows in ([5, 4, 3, 2, 1, 0], [2], [1, 4]):
        part = torch.tensor(rows)
        got = attack(net, x[part], y[part], rng=rng.select(part))
        torch.testing.assert_close(got, whole[part], atol=1e-9, rtol=0)


def test_random_start_depends_on_the_rng(net: nn.Module, x: Tensor, y: Tensor) -> None:
    net.eval()
    random = PGD(Linf(0.1), 1, 1e-4)
    start = Linf(0.1).noise(x, draw_for(x))
    assert (random(net, x, y, rng=draw_for(x)) - start).abs().max() < 1.1e-4
    assert not torch.equal(random(net, x, y, rng=draw_for(x)), random(net, x, y, rng=draw_for(x, seed=1)))
    plain = replace(random, start=from_x)
    assert (plain(net, x, y, rng=draw_for(x)) - x).abs().max() < 1.1e-4
    assert torch.equal(plain(net, x, y, rng=draw_for(x)), plain(net, x, y, rng=draw_for(x, seed=1)))


def test_steps_equal_the_number_of_gradients(x: Tensor, y: Tensor) -> None:
    seen = []

    def counting(batch: Tensor) -> Tensor:
        seen.append(batch.detach().clone())
        return batch.flatten(1)[:, :4]

    x_adv = PGD(Linf(1), 5, 0.01, start=from_x)(counting, x, y, rng=draw_for(x))
    assert len(seen) == 5
    assert torch.equal(seen[0], x)
    assert (x_adv - x).abs().max() <= 5 * 0.01 + 1e-6


def test_several_predictions_are_attacked_together(x: Tensor) -> None:
    first, second = nn.Linear(192, 2), nn.Linear(192, 2)

    def both(batch: Tensor) -> list[Tensor]:
        return [first(batch.flatten(1)), second(batch.flatten(1))]

    y = torch.zeros(6, dtype=torch.int64)
    x_adv = fgsm(Linf(0.1), Mean(margin))(both, x, y, rng=draw_for(x))
    ascent = (first.weight[1] - first.weight[0] + second.weight[1] - second.weight[0]).detach().view(3, 8, 8)
    torch.testing.assert_close(x_adv, (x + 0.1 * ascent.sign()).clamp(0, 1))


def test_each_gradient_is_its_image_s_own() -> None:
    x = images(3, 1)
    weights = torch.tensor([1.0, -2.0, 0.0], dtype=torch.float64).view(3, 1, 1, 1)

    def weighted_sum(prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction * target).flatten(1).sum(1)

    gradient = input_gradient(lambda batch: batch.square(), x, weights, weighted_sum)
    torch.testing.assert_close(gradient, 2 * x * weights)


CHANGES: dict[str, list[Any]] = {
    "threat": [Linf("4/255"), L2("8/255")],
    "steps": [11, 1],
    "step_size": [1 / 255, 0.0078],
    "loss": [margin, Mean(ce)],
    "start": [from_x, small_noise, noise_corner],
}


def test_every_field_is_part_of_the_identity() -> None:
    assert CHANGES.keys() == {field.name for field in fields(PGD)}
    variants = [replace(BASE, **{name: value}) for name, values in CHANGES.items() for value in values]
    identities = {str(attack) for attack in [BASE, *variants]}
    assert len(identities) == len(variants) + 1


def test_an_identity_is_readable_and_stable(python: Callable[..., str]) -> None:
    identity = "PGD-10(Linf:8/255, step=2/255, loss=ce, start=random_start)"
    assert str(BASE) == identity
    assert str(fgsm(L2(0.5))) == "PGD-1(L2:0.5, step=0.5, loss=ce, start=from_x)"
    program = "from forefend.attacks import PGD; print(PGD('Linf:8/255', 10, 2 / 255))"
    assert python(program) == identity


def test_equal_settings_are_equal_attacks() -> None:
    assert PGD(Linf(8 / 255), 10, 2 / 255) == BASE != replace(BASE, steps=9)


@pytest.mark.parametrize("steps", [0, -1])
def test_pgd_without_steps_raises(steps: int) -> None:
    with pytest.raises(InputError, match=f"{steps} steps.*at least 1"):
        PGD(Linf(0.1), steps, 0.01)


def small_convnet() -> nn.Module:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8 * 16, 4)
    )
    return network.double().eval()


@pytest.mark.parametrize("steps", [1, 10])
@THREATS
def test_foolbox_finds_the_same_images(threat: ThreatModel, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox")
    network, x = small_convnet(), torch.rand(8, 3, 8, 8, dtype=torch.float64)
    y = network(x).argmax(1)
    theirs = {
        (Linf, 1): lambda: foolbox.attacks.FGSM(random_start=False),
        (L2, 1): lambda: foolbox.attacks.FGM(random_start=False),
        (Linf, 10): lambda: foolbox.attacks.LinfPGD(abs_stepsize=threat.radius / 4, steps=10, random_start=False),
        (L2, 10): lambda: foolbox.attacks.L2PGD(abs_stepsize=threat.radius / 4, steps=10, random_start=False),
    }[type(threat), steps]()
    ours = fgsm(threat) if steps == 1 else PGD(threat, 10, threat.radius / 4, start=from_x)
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    expected = theirs.run(model, x, foolbox.criteria.Misclassification(y), epsilon=threat.radius)
    torch.testing.assert_close(ours(network, x, y, rng=draw_for(x)), expected, atol=1e-7, rtol=0)
