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
from forefend.recipes import AAA, HGD, RECIPES, RTFE, Adversarial, Robustifier
from forefend.recipes.base import Memory, Recipe
from forefend.runtime.rng import KeyedRNG
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import L2, Linf
from forefend.training.batches import Batches
from forefend.training.growing import FULL
from forefend.training.inner_attacks import (
    INNER_ATTACKS,
    PERTURBATION,
    AsPublished,
    AtLeast,
    Gradual,
    InnerAttack,
    Moment,
    SingleStep,
    WarmStarted,
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


def moment(
    progress: float = 0.0, epoch: int = 0, memory: Memory | None = None, moved: Callable[[Tensor], Tensor] = lambda x: x
) -> Moment:
    return Moment(progress, epoch, torch.arange(4), memory if memory is not None else {}, moved)


def kept(levels: Tensor) -> Memory:
    """What warm starts remember."""
    return {PERTURBATION: levels.to(torch.int8)}


def images() -> tuple[Tensor, Tensor, KeyedRNG]:
    x = 0.2 + 0.6 * torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.zeros(4, dtype=torch.int64), KeyedRNG(torch.arange(4), 1)


def linear(x: Tensor) -> Tensor:
    """Two logits whose difference grows with every pixel."""
    return torch.stack((-x.flatten(1).sum(1), x.flatten(1).sum(1)), 1)


def test_the_papers_own_attack_is_the_very_same() -> None:
    assert AsPublished()(ATTACK, moment()) is ATTACK


@pytest.mark.parametrize(("progress", "steps", "size"), [(0, 1, 0.125), (0.34, 3, 0.175 / 3), (0.67, 7, 0.025)])
def test_gradual_takes_a_share_of_the_steps_and_goes_as_far(progress: float, steps: int, size: float) -> None:
    attack: Any = Gradual()(ATTACK, moment(progress))
    assert (attack.steps, attack.threat, attack.loss) == (steps, ATTACK.threat, margin)
    assert attack.step_size == pytest.approx(size)  # 1.25 radii at most


def test_gradual_ends_with_the_papers_attack_also_at_the_last_moment() -> None:
    assert Gradual()(ATTACK, moment(1 - 1e-9)) == ATTACK


def test_one_step_is_n_fgsm_for_the_same_threat_and_loss() -> None:
    assert SingleStep(1.0, 1.25)(ATTACK, moment()) == NFGSM(ATTACK.threat, 1.0, 1.25, margin)


def test_what_is_fallen_back_to_takes_several_steps() -> None:
    assert AtLeast()(ATTACK, moment()) is ATTACK
    fallen: Any = AtLeast()(fgsm(Linf(0.1)), moment())
    assert (fallen.steps, fallen.step_size) == (7, pytest.approx(0.025))


def test_a_single_step_is_known_as_one() -> None:
    several = {
        name: [steps for steps in (1, 2, 7, 40) if not inner.single(steps)] for name, inner in INNER_ATTACKS.items()
    }
    warm = {"warm-started": [], "warm-then-two": [], "warm-deepening": [], "warm-noised": [1, 2, 7, 40]}
    assert several == {"as-published": [2, 7, 40], "gradual": [40], "single-step": []} | warm
    assert not AtLeast().single(1)


def test_a_warm_start_goes_on_where_the_last_epoch_ended() -> None:
    x, y, rng = images()
    memory, warm = kept(torch.zeros(4, 1, 4, 4)), WarmStarted(relative_step=0.5)
    first = warm(ATTACK, moment(epoch=0, memory=memory))(linear, x, y, rng=rng)
    noise = ATTACK.threat.noise(x, rng) - x
    torch.testing.assert_close(first, x + (noise + 0.05).clamp(-0.1, 0.1))
    second = warm(ATTACK, moment(epoch=1, memory=memory))(linear, x, y, rng=rng.fold_in(step=9))
    expected = x + (noise + 0.05).clamp(-0.1, 0.1).add(0.05).clamp(-0.1, 0.1)
    torch.testing.assert_close(second, expected, rtol=0, atol=0.1 / 127)
    assert memory[PERTURBATION].max() == 127
    third = warm(ATTACK, moment(epoch=10, memory=memory))(linear, x, y, rng=rng)
    assert torch.equal(third, first)  # begun anew


@pytest.mark.parametrize(
    ("name", "progress", "steps"),
    [
        *(("warm-then-two", progress, steps) for progress, steps in ((0, 1), (0.7499, 1), (0.75, 2), (1 - 1e-9, 2))),
        *(("warm-deepening", progress, steps) for progress, steps in ((0, 1), (0.34, 2), (0.67, 3), (1 - 1e-9, 3))),
        *(("warm-noised", progress, steps) for progress, steps in ((0, 2), (0.4999, 2), (0.5, 3), (1 - 1e-9, 3))),
    ],
)
def test_warm_steps_come_in_equal_spans_and_keep_their_length(name: str, progress: float, steps: int) -> None:
    x, y, rng = images()
    memory = kept(torch.zeros(4, 1, 4, 4))
    ours: Any = INNER_ATTACKS[name]
    assert ours.relative_step == 0.5
    warm = replace(ours, relative_step=0.25, noise=0.0)  # short enough for three within the radius
    x_adv = warm(ATTACK, moment(progress, epoch=1, memory=memory))(linear, x, y, rng=rng)
    torch.testing.assert_close(x_adv, x + 0.025 * steps)


def test_noise_moves_a_warm_start_within_the_ball() -> None:
    x, y, rng = images()
    levels = torch.tensor([0, 127, -127, 100]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    still = replace(INNER_ATTACKS["warm-noised"], relative_step=1e-9)  # the attack stays where it starts
    x_adv = still(ATTACK, moment(epoch=1, memory=kept(levels)))(linear, x, y, rng=rng)
    delta = levels * 0.1 / 127 + 0.05 * (2 * rng.uniform(x) - 1)
    torch.testing.assert_close(x_adv, x + delta.clamp(-0.1, 0.1), rtol=0, atol=1e-6)
    assert (delta.abs() > 0.1).any()


def test_warm_starts_remember_every_image_in_a_byte_a_pixel() -> None:
    memory = WarmStarted().remember(toy_images(10))
    assert memory[PERTURBATION].shape == (10, 1, 6, 6)
    assert memory[PERTURBATION].dtype == torch.int8


def test_a_sample_keeps_rows_for_its_own_images_alone() -> None:
    many = toy_images(1000)
    memory = WarmStarted().remember(many.subset(torch.tensor([7, 8, 900, 940])))
    assert memory[PERTURBATION].shape == (4, 1, 6, 6)
    memory[PERTURBATION] += torch.tensor([10, 20, 30, 40], dtype=torch.int8).view(4, 1, 1, 1)
    x, _, index = many.batch(torch.tensor([940, 7, 900, 8]))
    x = x / 2 + 0.2  # no pixel near the ends
    still = WarmStarted(relative_step=1e-9)  # the attack stays where it starts
    batch = replace(moment(epoch=1, memory=memory), rows=torch.tensor([3, 0, 2, 1]))
    x_adv = still(ATTACK, batch)(linear, x, torch.zeros_like(index), rng=KeyedRNG(index))
    expected = x + torch.tensor([40, 10, 30, 20]).view(4, 1, 1, 1) * 0.1 / 127
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-6)
    assert memory[PERTURBATION][:, 0, 0, 0].tolist() == [10, 20, 30, 40]


@given(st.integers(0, 10**6))
def test_a_perturbation_moves_with_its_image_and_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    uniform, x = torch.rand(4, 3, generator=generator), 0.5 + torch.zeros(4, 1, 4, 4)
    levels = torch.randint(-127, 128, x.shape, generator=generator)
    memory = kept(levels)
    y, rng = torch.zeros(4, dtype=torch.int64), KeyedRNG(torch.arange(4))

    def moved(images: Tensor) -> Tensor:
        return crop_flip(images, uniform, pad=2)

    still = WarmStarted(relative_step=1e-9)  # the attack stays where it starts
    x_adv = still(ATTACK, moment(epoch=1, memory=memory, moved=moved))(linear, x, y, rng=rng)
    torch.testing.assert_close(x_adv, x + moved(levels * 0.1 / 127), rtol=0, atol=1e-6)
    assert torch.equal(memory[PERTURBATION], levels.to(torch.int8))  # what is out of sight is kept


def test_what_a_step_adds_comes_back_to_the_pixels_that_are_in_sight() -> None:
    x, y = 0.5 + torch.zeros(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64)
    uniform = torch.tensor([[0.0, 0.5, 0.9]] * 2 + [[0.5, 0.5, 0.1]] * 2)  # two shifted down by one, two mirrored
    memory = kept(torch.zeros(4, 1, 4, 4))
    warm = WarmStarted(relative_step=0.5)
    warm(ATTACK, moment(0.5, 1, memory, lambda images: crop_flip(images, uniform, pad=1)))(
        linear, x, y, rng=KeyedRNG(torch.arange(4))
    )
    level = round(0.5 * 127)
    assert memory[PERTURBATION][0, 0].tolist() == [[level] * 4] * 3 + [[0] * 4]  # the last row was moved out
    assert memory[PERTURBATION][2, 0].tolist() == [[level] * 4] * 4


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (lambda x: (x + 0.1).clamp(0, 1), "only moves pixels: this one changes them"),
        (lambda x: x.detach().flip(3), "gradients go through: this one stops them"),
    ],
)
def test_an_augmentation_that_perturbations_cannot_follow_is_one_sentence(moved: Any, words: str) -> None:
    x, y, rng = images()
    memory = kept(torch.zeros(4, 1, 4, 4))
    with pytest.raises(InputError, match=words):
        WarmStarted()(ATTACK, moment(memory=memory, moved=moved))(linear, x, y, rng=rng)


@pytest.mark.parametrize("steps", [(), (1, 0), 2])
def test_warm_starts_take_a_step_in_every_span(steps: Any) -> None:
    with pytest.raises(InputError, match=r"^Warm starts were given the steps .+, expected whole numbers of at least 1"):
        WarmStarted(steps=steps)


def test_noise_on_warm_starts_is_nowhere_below_nothing() -> None:
    with pytest.raises(InputError, match=r"^The noise on warm starts is -0\.5 radii wide, expected at least 0\.$"):
        WarmStarted(noise=-0.5)


def test_warm_starts_are_for_linf() -> None:
    with pytest.raises(InputError, match=r"^Warm starts are kept for l∞, and the threat model is L2:0\.5"):
        WarmStarted()(PGD(L2(0.5), 2, 0.1), moment())


class Counting(InnerAttack):
    """Keeps the attacks that it is handed and the moments."""

    def __init__(self) -> None:
        self.asked: list[tuple[PGD, Moment]] = []

    def __call__(self, attack: PGD, moment: Moment) -> Attack:
        self.asked.append((attack, moment))
        return attack

    def single(self, steps: int) -> bool:
        return False


@asking
def test_a_recipe_that_says_so_asks_at_every_step_with_its_papers_attack(recipe: Recipe) -> None:
    counting = Counting()
    plain = trained(train(recipe, toy_images(), toy_cast()))
    assert same(trained(train(recipe, toy_images(), toy_cast(), inner=counting)), plain)
    assert {(a.steps, str(a.threat)) for a, _ in counting.asked} == {(4, "Linf:0.1")}
    assert {m.epoch for _, m in counting.asked} == {0, 1}
    held_out = round(40 * recipe.hold_out)
    assert sum(len(m.rows) for _, m in counting.asked) == 2 * (40 - held_out)


def test_each_image_of_a_sample_is_told_by_its_row() -> None:
    sample, counting = toy_images(1000).subset(torch.tensor([940, 7, 900, 8, 33])), Counting()
    batches = Batches(sample, None, 2, 2, 0, None, counting, FULL, Accelerator(cpu=True))
    for step in range(batches.steps):
        batch, _ = batches.fold_in(step, {})
        assert batch.inner(ATTACK) is ATTACK
        assert torch.equal(sample.index[counting.asked[-1][1].rows], batch.index)
    assert sorted(row for _, m in counting.asked for row in m.rows.tolist()) == sorted([*range(5)] * 2)


@asking
@cheaper
def test_it_resumes_to_the_same_weights_and_trains_others_than_the_papers(
    recipe: Recipe, inner: InnerAttack, tmp_path: Path
) -> None:
    plain = trained(train(recipe, toy_images(), toy_cast()))
    whole = trained(train(recipe, toy_images(), toy_cast(), inner=inner))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, toy_images(), toy_cast(), inner=inner, run=Run(tmp_path), augment=Stopping(4), checkpoint_every=0)
    assert same(trained(train(recipe, toy_images(), toy_cast(), inner=inner, run=Run(tmp_path))), whole)
    assert not same(whole, plain)


def test_warm_starts_go_through_the_photographs_augmentation() -> None:
    shift = augmentation("cifar-10")
    assert shift is not None
    train(THAT_ASK[1], toy_images(), toy_cast(), inner=WarmStarted(), augment=shift)


def test_who_does_not_ask_is_told_so() -> None:
    assert {name for name, recipe in RECIPES.items() if recipe.asks_inner} == {
        "aaa",
        "adversarial",
        "robustifier",
        "rtfe",
    }
    with pytest.raises(InputError, match=r"^HGD runs its own attack alone: leave --inner away\.$"):
        train(HGD(epochs=1), toy_images(), toy_cast(), inner=Gradual())
