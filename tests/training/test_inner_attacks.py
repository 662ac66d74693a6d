from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from helpers.toy_networks import Stopping, same, toy_cast, toy_images, train, trained
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.attacks.base import Attack
from forefend.attacks.n_fgsm import NFGSM
from forefend.attacks.pgd import PGD, fgsm
from forefend.checks import InputError
from forefend.data.augmentation import augmentation, crop_flip
from forefend.losses import margin
from forefend.models.defended import pipelines
from forefend.recipes import AAA, HGD, RECIPES, RTFE, Adversarial, Robustifier
from forefend.recipes.base import Batch, Recipe
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import L2, Linf
from forefend.training.batches import Batches
from forefend.training.inner_attacks import (
    ATTA,
    FGSMPGI,
    INNER_ATTACKS,
    AsPublished,
    AtLeast,
    Gradual,
    InnerAttack,
    SingleNFGSM,
)

ATTACK = PGD(Linf(0.1), steps=7, step_size=0.025, loss=margin)
THAT_ASK = [
    RTFE(Linf(0.1), steps=4, epochs=2, batch_size=16),
    Adversarial(Linf(0.1), steps=4, epochs=2, batch_size=16),
    AAA(Linf(0.1), steps=4, epochs=2, batch_size=16),
    Robustifier(Linf(0.1), steps=4, epochs=2, batch_size=16, lr=0.05),
]
asking = pytest.mark.parametrize("recipe", THAT_ASK, ids=lambda recipe: type(recipe).__name__)
cheaper = pytest.mark.parametrize(
    "inner", [i for n, i in INNER_ATTACKS.items() if n != "as-published"], ids=lambda i: str(i)[:9]
)


def batch(progress: float = 0.0, epoch: int = 0, augment: Callable[[Tensor], Tensor] = lambda x: x) -> Batch:
    """A batch of four images whose pixels no inner attack uses."""
    rows = torch.arange(4)
    return Batch(torch.empty(4, 1, 4, 4), rows, rows, progress, KeyedRNG(rows), epoch, rows, augment)


def kept(levels: Tensor) -> TrainState:
    """The state with these perturbations."""
    return TrainState(perturbations=levels.to(torch.int8))


def images() -> tuple[Tensor, Tensor, KeyedRNG]:
    x = 0.2 + 0.6 * torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros(4, dtype=torch.int64), KeyedRNG(torch.arange(4), 1)


def linear(x: Tensor) -> Tensor:
    """Two logits whose difference grows with every pixel."""
    return torch.stack((-x.flatten(1).sum(1), x.flatten(1).sum(1)), 1)


def test_as_published_returns_the_attack() -> None:
    assert AsPublished()(ATTACK, batch(), TrainState()) is ATTACK


@pytest.mark.parametrize(("progress", "steps", "size"), [(0, 1, 0.125), (0.34, 3, 0.175 / 3), (0.67, 7, 0.025)])
def test_gradual_takes_fewer_and_longer_steps(progress: float, steps: int, size: float) -> None:
    attack: Any = Gradual()(ATTACK, batch(progress), TrainState())
    assert (attack.steps, attack.threat, attack.loss) == (steps, ATTACK.threat, margin)
    assert attack.step_size == pytest.approx(size)  # 1.25 radii at most


def test_gradual_ends_with_the_papers_attack() -> None:
    assert Gradual()(ATTACK, batch(1 - 1e-9), TrainState()) == ATTACK


def test_single_n_fgsm_has_the_same_threat_and_loss() -> None:
    assert SingleNFGSM(1.0, 1.25)(ATTACK, batch(), TrainState()) == NFGSM(ATTACK.threat, 1.0, 1.25, margin)


def test_at_least_takes_several_steps() -> None:
    assert AtLeast()(ATTACK, batch(), TrainState()) is ATTACK
    fallen: Any = AtLeast()(fgsm(Linf(0.1)), batch(), TrainState())
    assert (fallen.steps, fallen.step_size) == (7, pytest.approx(0.025))


def test_uses_single_steps_of_each_inner_attack() -> None:
    several = {
        name: [steps for steps in (1, 2, 7, 40) if not inner.uses_single_steps(steps)]
        for name, inner in INNER_ATTACKS.items()
    }
    assert several == {"as-published": [2, 7, 40], "gradual": [40], "n-fgsm": [], "atta": [], "fgsm-pgi": []}
    assert not ATTA((2, 3)).uses_single_steps(1)
    assert not AtLeast().uses_single_steps(1)


def test_atta_starts_where_the_last_epoch_ended() -> None:
    x, y, rng = images()
    state, warm = kept(torch.zeros(4, 1, 4, 4)), ATTA(relative_step=0.5)
    first = warm(ATTACK, batch(epoch=0), state)(linear, x, y, rng=rng)
    noise = ATTACK.threat.noise(x, rng) - x
    torch.testing.assert_close(first, x + (noise + 0.05).clamp(-0.1, 0.1))
    second = warm(ATTACK, batch(epoch=1), state)(linear, x, y, rng=rng.fold_in(step=9))
    expected = x + (noise + 0.05).clamp(-0.1, 0.1).add(0.05).clamp(-0.1, 0.1)
    torch.testing.assert_close(second, expected, rtol=0, atol=0.1 / 127)
    assert state.perturbations.max() == 127
    third = warm(ATTACK, batch(epoch=10), state)(linear, x, y, rng=rng)
    assert torch.equal(third, first)  # begun anew


@pytest.mark.parametrize(
    ("spans", "progress", "steps"),
    [
        *(((1, 1, 1, 2), progress, steps) for progress, steps in ((0, 1), (0.7499, 1), (0.75, 2), (1 - 1e-9, 2))),
        *(((1, 2, 3), progress, steps) for progress, steps in ((0, 1), (0.34, 2), (0.67, 3), (1 - 1e-9, 3))),
        *(((2, 3), progress, steps) for progress, steps in ((0, 2), (0.4999, 2), (0.5, 3), (1 - 1e-9, 3))),
    ],
)
def test_atta_takes_its_steps_in_equal_spans(spans: tuple[int, ...], progress: float, steps: int) -> None:
    x, y, rng = images()
    state = kept(torch.zeros(4, 1, 4, 4))
    warm = ATTA(spans, relative_step=0.25)  # short enough for three within the radius
    x_adv = warm(ATTACK, batch(progress, epoch=1), state)(linear, x, y, rng=rng)
    torch.testing.assert_close(x_adv, x + 0.025 * steps)


def test_atta_noise_stays_within_the_ball() -> None:
    x, y, rng = images()
    levels = torch.tensor([0, 127, -127, 100]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    still = ATTA((2, 3), relative_step=1e-9, noise=0.5)  # the attack stays where it starts
    x_adv = still(ATTACK, batch(epoch=1), kept(levels))(linear, x, y, rng=rng)
    delta = levels * 0.1 / 127 + 0.05 * (2 * rng.uniform(x) - 1)
    torch.testing.assert_close(x_adv, x + delta.clamp(-0.1, 0.1), rtol=0, atol=1e-6)
    assert (delta.abs() > 0.1).any()


def test_atta_stores_one_byte_per_pixel() -> None:
    perturbations = ATTA().init_perturbations(toy_images(10))
    assert perturbations.shape == (10, 1, 6, 6)
    assert perturbations.dtype == torch.int8


def test_atta_stores_only_the_images_of_a_subset() -> None:
    many = toy_images(1000)
    state = TrainState(perturbations=ATTA().init_perturbations(many.subset(torch.tensor([7, 8, 900, 940]))))
    assert state.perturbations is not None
    assert state.perturbations.shape == (4, 1, 6, 6)
    state.perturbations += torch.tensor([10, 20, 30, 40], dtype=torch.int8).view(4, 1, 1, 1)
    x, _, index = many.batch(torch.tensor([940, 7, 900, 8]))
    x = x / 2 + 0.2  # no pixel near the ends
    still = ATTA(relative_step=1e-9)  # the attack stays where it starts
    rows = torch.tensor([3, 0, 2, 1])
    x_adv = still(ATTACK, replace(batch(epoch=1), rows=rows), state)(
        linear, x, torch.zeros_like(index), rng=KeyedRNG(index)
    )
    expected = x + torch.tensor([40, 10, 30, 20]).view(4, 1, 1, 1) * 0.1 / 127
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-6)
    assert state.perturbations[:, 0, 0, 0].tolist() == [10, 20, 30, 40]


@given(st.integers(0, 10**6))
def test_atta_augments_perturbations_and_undoes_it(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    uniform, x = torch.rand(4, 3, generator=generator), 0.5 + torch.zeros(4, 1, 4, 4)
    levels = torch.randint(-127, 128, x.shape, generator=generator)
    state = kept(levels)
    y, rng = torch.zeros(4, dtype=torch.int64), KeyedRNG(torch.arange(4))

    def augment(images: Tensor) -> Tensor:
        return crop_flip(images, uniform, pad=2)

    still = ATTA(relative_step=1e-9)  # the attack stays where it starts
    x_adv = still(ATTACK, batch(epoch=1, augment=augment), state)(linear, x, y, rng=rng)
    torch.testing.assert_close(x_adv, x + augment(levels * 0.1 / 127), rtol=0, atol=1e-6)
    assert torch.equal(state.perturbations, levels.to(torch.int8))  # what is out of sight is kept


def test_atta_stores_steps_of_visible_pixels() -> None:
    x, y = 0.5 + torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    uniform = torch.tensor([[0.0, 0.5, 0.9]] * 2 + [[0.5, 0.5, 0.1]] * 2)  # two shifted down by one, two mirrored
    state = kept(torch.zeros(4, 1, 4, 4))
    warm = ATTA(relative_step=0.5)
    warm(ATTACK, batch(0.5, 1, lambda images: crop_flip(images, uniform, pad=1)), state)(
        linear, x, y, rng=KeyedRNG(torch.arange(4))
    )
    level = round(0.5 * 127)
    assert state.perturbations[0, 0].tolist() == [[level] * 4] * 3 + [[0] * 4]  # the last row was moved out
    assert state.perturbations[2, 0].tolist() == [[level] * 4] * 4


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (lambda x: (x + 0.1).clamp(0, 1), "only moves pixels, and this one changes them"),
        (lambda x: x.detach().flip(3), "passes gradients, and this one stops them"),
    ],
)
def test_atta_with_an_unsuitable_augmentation_raises(augment: Any, words: str) -> None:
    x, y, rng = images()
    state = kept(torch.zeros(4, 1, 4, 4))
    with pytest.raises(InputError, match=words):
        ATTA()(ATTACK, batch(augment=augment), state)(linear, x, y, rng=rng)


@pytest.mark.parametrize("steps", [(), (1, 0), 2])
def test_atta_with_invalid_steps_raises(steps: Any) -> None:
    with pytest.raises(InputError, match="steps of ATTA are"):
        ATTA(steps=steps)


def test_atta_with_negative_noise_raises() -> None:
    with pytest.raises(InputError, match=r"-0\.5 radii, expected at least 0"):
        ATTA(noise=-0.5)


@pytest.mark.parametrize("inner", [ATTA(), FGSMPGI()])
def test_reused_perturbations_with_l2_raise(inner: InnerAttack) -> None:
    with pytest.raises(InputError, match=r"L2:0\.5, expected l∞"):
        inner.check(L2(0.5))


def weighted(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """Two logits whose difference grows with each pixel by its weight; the gradient of `margin` is -2 weights."""

    def f(x: Tensor) -> Tensor:
        total = (x * weights).flatten(1).sum(1)
        return torch.stack((total, -total), 1)

    return f


def test_fgsm_pgi_steps_along_the_gradient_and_stores_a_step_along_the_momentum() -> None:
    x, y, rng = images()
    state = TrainState(perturbations=torch.zeros(4, 2, 1, 4, 4, dtype=torch.float16))
    inner = FGSMPGI(relative_step=0.5, decay=0.3)
    up, down = torch.full((1, 4, 4), 5.0), torch.full((1, 4, 4), -5.0)
    down[0, :2] = 2.0  # gradients of -4 in these eight pixels, of +10 in the others: of mean size 7
    corner = x + 0.1 * (2 * rng.uniform(x) - 1).sign()
    first = inner(ATTACK, batch(epoch=0), state)(weighted(up), x, y, rng=rng)  # the gradient is -10 everywhere
    torch.testing.assert_close(first, x + (corner - x - 0.05).clamp(-0.1, 0.1))
    assert state.perturbations is not None
    torch.testing.assert_close(state.perturbations[:, 1].float(), torch.full_like(x, -1.0))
    torch.testing.assert_close(state.perturbations[:, 0].float(), (first - x) / 0.1, rtol=0, atol=1e-3)
    attack: Any = inner(ATTACK, batch(epoch=1), state)
    second = attack(weighted(down), x, y, rng=rng)
    gradient = torch.where(down < 0, 10 / 7, -4 / 7).expand_as(x)
    torch.testing.assert_close(second, x + (first - x + 0.05 * gradient.sign()).clamp(-0.1, 0.1), rtol=0, atol=1e-4)
    momentum = gradient - 0.3
    torch.testing.assert_close(state.perturbations[:, 1].float(), momentum, rtol=0, atol=1e-3)
    stored = (first - x + 0.05 * momentum.sign()).clamp(-0.1, 0.1) / 0.1
    torch.testing.assert_close(state.perturbations[:, 0].float(), stored, rtol=0, atol=2e-3)
    ((start, end),) = attack.pairs
    torch.testing.assert_close(start, first, rtol=0, atol=1e-4)
    assert torch.equal(end, second)


def test_fgsm_pgi_momentum_decides_where_gradients_are_small() -> None:
    x, y = 0.5 + torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    state = TrainState(perturbations=torch.zeros(4, 2, 1, 4, 4, dtype=torch.float16))
    assert state.perturbations is not None
    state.perturbations[:, 1] = 1.0
    weights = torch.full((1, 4, 4), -5.0)
    weights[0, 0] = 0.1  # a small gradient against the momentum
    FGSMPGI()(ATTACK, batch(epoch=1), state)(weighted(weights), x, y, rng=KeyedRNG(torch.arange(4)))
    torch.testing.assert_close(state.perturbations[:, 0].float(), torch.ones_like(x), rtol=0, atol=1e-3)


def test_fgsm_pgi_penalty_is_the_squared_difference_of_logits() -> None:
    networks, inner = toy_cast(), FGSMPGI(weight=10.0)
    x, y, index = toy_images(4).batch(torch.arange(4))
    state = TrainState(perturbations=inner.init_perturbations(toy_images(4)))
    attack = inner(ATTACK, replace(batch(), index=index), state)
    f = pipelines(networks.preprocessor, list(networks.guides))
    assert inner.penalty(attack, f) is None  # before it ran
    x_adv = attack(lambda x: f(x)[0], x, y, rng=KeyedRNG(index))
    ((start, end),) = attack.pairs  # type: ignore[attr-defined]
    assert torch.equal(end, x_adv)
    penalty = inner.penalty(attack, f)
    assert penalty is not None
    expected = [10 * (a - b).square().mean() for a, b in zip(f(end), f(start), strict=True)]
    torch.testing.assert_close(penalty, torch.stack(expected).mean())
    assert penalty > 0
    assert torch.autograd.grad(penalty, networks.preprocessor[0].weight)[0].abs().sum() > 0
    assert FGSMPGI(weight=0.0).penalty(attack, f) is None
    assert AsPublished().penalty(attack, f) is None


def test_fit_adds_the_penalty_to_the_loss() -> None:
    casts = [toy_cast(batch_norm=False) for _ in range(2)]  # whose statistics the passes of the penalty would change
    for cast, weight in zip(casts, (0.0, 10.0), strict=True):
        train(THAT_ASK[1], toy_images(), cast, inner_attack=FGSMPGI(weight=weight))
    assert not same(*map(trained, casts))


@pytest.mark.parametrize("options", [{"decay": 1.0}, {"decay": -0.1}, {"weight": -1.0}, {"decay": float("nan")}])
def test_fgsm_pgi_with_an_invalid_number_raises(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"of FGSM-PGI is .*, expected at least 0"):
        FGSMPGI(**options)


class Counting(InnerAttack):
    """Keeps the attacks that it is handed and the moments."""

    def __init__(self) -> None:
        self.asked: list[tuple[PGD, Batch]] = []

    def __call__(self, attack: PGD, batch: Batch, state: TrainState) -> Attack:
        self.asked.append((attack, batch))
        return attack

    def uses_single_steps(self, steps: int) -> bool:
        return False


@asking
def test_fit_wraps_the_inner_attack_at_every_step(recipe: Recipe) -> None:
    counting = Counting()
    plain = trained(train(recipe, toy_images(), toy_cast()))
    assert same(trained(train(recipe, toy_images(), toy_cast(), inner_attack=counting)), plain)
    assert {(a.steps, str(a.threat)) for a, _ in counting.asked} == {(4, "Linf:0.1")}
    assert {b.epoch for _, b in counting.asked} == {0, 1}
    held_out = round(40 * recipe.hold_out)
    assert sum(len(b.rows) for _, b in counting.asked) == 2 * (40 - held_out)


def test_batches_give_the_row_of_each_image() -> None:
    sample, rows = toy_images(1000).subset(torch.tensor([940, 7, 900, 8, 33])), list[int]()
    batches = Batches(sample, 2, 2, 0, None, Accelerator(cpu=True))
    for step in range(batches.steps):
        one, _ = batches.at(step)
        assert torch.equal(sample.index[one.rows], one.index)
        rows += one.rows.tolist()
    assert sorted(rows) == sorted([*range(5)] * 2)


@asking
@cheaper
def test_fit_with_inner_attack_resumes_to_the_same_weights(recipe: Recipe, inner: InnerAttack, tmp_path: Path) -> None:
    plain = trained(train(recipe, toy_images(), toy_cast()))
    whole = trained(train(recipe, toy_images(), toy_cast(), inner_attack=inner))
    with pytest.raises(KeyboardInterrupt):
        train(
            recipe,
            toy_images(),
            toy_cast(),
            inner_attack=inner,
            run=Run(tmp_path),
            augment=Stopping(4),
            checkpoint_every=0,
        )
    assert same(trained(train(recipe, toy_images(), toy_cast(), inner_attack=inner, run=Run(tmp_path))), whole)
    assert not same(whole, plain)


def test_atta_accepts_the_augmentation_of_photographs() -> None:
    shift = augmentation("cifar-10")
    assert shift is not None
    train(THAT_ASK[1], toy_images(), toy_cast(), inner_attack=ATTA(), augment=shift)


def test_fit_of_a_fixed_attack_with_inner_attack_raises() -> None:
    assert {name for name, recipe in RECIPES.items() if recipe.inner_attack_replaceable} == {
        "aaa",
        "adversarial",
        "robustifier",
        "rtfe",
    }
    with pytest.raises(InputError, match="attack of HGD is fixed"):
        train(HGD(epochs=1), toy_images(), toy_cast(), inner_attack=Gradual())
