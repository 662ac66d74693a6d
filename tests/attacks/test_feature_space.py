from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, held, preprocessor, untouched
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from forefend.attacks.feature_space import (
    AnotherClass,
    CeAndReconstruction,
    Features,
    WithTarget,
    another_class,
    clean,
    feature_attack,
    label_and_image,
    latent,
    latent_attack,
    negative_squared_distance,
    reconstruction,
    reconstruction_attack,
)
from forefend.attacks.pgd import PGD, from_x, small_noise
from forefend.checks import InputError
from forefend.evaluation.trial import Trial
from forefend.losses import ce, mse
from forefend.models.defended import Defended
from forefend.models.defense import Defense, DefenseCard
from forefend.models.guide import Guide
from forefend.models.preprocessors import AaaAutoencoder
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf


def gray(count: int, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return 0.4 + 0.2 * torch.rand(count, channels, 6, 6, generator=generator, dtype=torch.float64)


def draw_for(x: Tensor, seed: int = 0) -> KeyedRNG:
    return KeyedRNG(torch.arange(len(x)), seed)


X, Y = gray(5), torch.tensor([0, 1, 2, 3, 0])
DRAW = draw_for(X)


def test_feature_attack_on_a_linear_map_reaches_the_optimum() -> None:
    """Where features are scaled pixels, the farthest image is at a corner of the ball, on either side."""
    scale = torch.rand(1, 6, 6, dtype=torch.float64) + 0.5
    f = lambda x: scale * x  # noqa: E731
    x_adv = feature_attack(Linf(0.1), 10, 0.05)(f, X, f(X), rng=DRAW)
    torch.testing.assert_close((x_adv - X).abs(), torch.full_like(X, 0.1))
    torch.testing.assert_close(mse(f(x_adv), f(X)), (0.1 * scale).square().mean().expand(5))
    assert torch.equal(WithTarget(feature_attack(Linf(0.1), 10, 0.05), clean)(f, X, Y, rng=DRAW), x_adv)


def test_feature_attack_in_l2_finds_the_first_singular_vector() -> None:
    """‖Aδ‖ is largest along A's first right singular vector; gradient ascent on a sphere is the power method."""
    torch.manual_seed(4)
    matrix = torch.randn(7, 36, dtype=torch.float64)
    f = lambda x: x.flatten(1) @ matrix.T  # noqa: E731
    x_adv = feature_attack(L2(0.2), 300, 0.2)(f, X, f(X), rng=DRAW)
    largest = float(torch.linalg.svdvals(matrix)[0])
    moved = (f(x_adv) - f(X)).norm(dim=1)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.2 * largest), rtol=1e-3, atol=0)


def test_feature_attack_from_x_raises() -> None:
    f = nn.Flatten()
    assert torch.equal(PGD(Linf(0.1), 3, 0.05, loss=mse, start=from_x)(f, X, f(X), rng=DRAW), X)
    with pytest.raises(InputError, match=r"zero gradient.*random_start"):
        feature_attack(Linf(0.1), 3, 0.05, start=from_x)
    assert feature_attack(Linf(0.1), 3, 0.05, start=small_noise).start is small_noise


@pytest.mark.parametrize("start", [from_x, small_noise])
def test_latent_attack_reaches_the_nearest_latent(start: Any) -> None:
    """Where latents are the pixels, the nearest allowed image is the other one clipped to the ball."""
    goal = gray(5).flip(0)
    x_adv = latent_attack(Linf(0.05), 60, 0.002, start)(nn.Identity(), X, goal, rng=DRAW)
    nearest = torch.minimum(torch.maximum(goal, X - 0.05), X + 0.05)
    assert (x_adv - nearest).abs().max() <= 0.002 + 1e-9
    assert (nearest - X).abs().max() > 0.049
    assert latent_attack(Linf(0.05), 1, 0.002, start).start is start


def test_negative_squared_distance_equals_hand_numbers() -> None:
    a, b = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[[0.0, 4.0]], [[3.0, 4.0]]])
    assert negative_squared_distance(a, b).tolist() == [-5.0, -25.0]


def test_the_reconstruction_term_is_added_by_its_weight() -> None:
    logits, y = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    x, z = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]], [[[2.0, 2.0]]]])
    paid = CeAndReconstruction(10.0)((logits, z), (y, x))
    torch.testing.assert_close(paid, torch.tensor([0.6931472 + 5.0, 0.6931472 + 40.0]))
    assert str(CeAndReconstruction(10.0)) == "ce + 10.0 mse"


def defended(seed: int = 3) -> Defended:
    return Defended(Defense(preprocessor(seed), DefenseCard("toy")), classifier()).eval().double()


def test_without_weight_the_reconstruction_attack_is_pgd() -> None:
    model = defended()
    plain = PGD(Linf(0.1), 3, 0.05)(model, X, Y, rng=DRAW)
    attack = WithTarget(reconstruction_attack(Linf(0.1), 3, 0.05, weight=0.0), label_and_image)
    assert torch.equal(attack(reconstruction(model), X, Y, rng=DRAW), plain)


def test_reconstruction_attack_with_large_weight_is_pgd_on_mse() -> None:
    model = defended()
    spoiled = PGD(Linf(0.1), 3, 0.05, loss=mse)(model.defense, X, X, rng=DRAW)
    attack = reconstruction_attack(Linf(0.1), 3, 0.05, weight=1e12)
    assert torch.equal(attack(reconstruction(model), X, (Y, X), rng=DRAW), spoiled)


def test_views_equal_the_outputs_of_the_parts() -> None:
    model = defended()
    x_out = model.defense(X)
    logits, z = reconstruction(model)(X)
    assert torch.equal(z, x_out)
    assert torch.equal(logits, model(X))
    _, read = model.classifier.read(x_out, ["0", "2"])
    assert torch.equal(Features("2")(model)(X), read["2"])
    assert torch.equal(Features("0")(model)(X), read["0"])
    assert torch.equal(Features("0")(model.classifier)(X), model.classifier.read(X, ["0"])[1]["0"])


@pytest.mark.parametrize("wrapped", [True, False])
def test_latent_view_is_the_encoder_output(wrapped: bool) -> None:
    autoencoder = AaaAutoencoder(width=4).double()
    defense = Defense(autoencoder, DefenseCard("aaa-autoencoder")) if wrapped else autoencoder
    found = latent(Defended(defense, classifier().double()))(X)
    assert torch.equal(found, autoencoder.encoder(X))
    assert found.shape == (5, 4, 2, 2)


@pytest.mark.parametrize(
    ("attack", "view"),
    [
        (WithTarget(feature_attack(Linf(0.1), 2, 0.005), clean), Features("2")),
        (WithTarget(latent_attack(Linf(0.1), 2, 0.005), AnotherClass(X.float(), Y)), latent),
        (WithTarget(reconstruction_attack(Linf(0.1), 2, 0.005), label_and_image), reconstruction),
    ],
)
def test_view_is_attacked_in_eval_mode_and_restored(attack: WithTarget, view: Any) -> None:
    modes: list[bool] = []

    class Spy(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            modes.append(self.training)
            return super().forward(x)

    autoencoder = AaaAutoencoder(width=4)
    autoencoder.encoder.append(Spy(4))
    network = classifier().train()
    model = Defended(Defense(autoencoder, DefenseCard("aaa-autoencoder")), network).train()
    before, before_network = held(model), held(network)
    x = X.float()
    f = view(model)
    x_adv = attack(f, x, Y, rng=DRAW)
    assert modes
    assert not any(modes)
    assert untouched(model, before)
    assert untouched(network, before_network)
    assert attack.steps == 2
    assert Linf(0.1).allows(x_adv, x).all()
    attacked = attack.attack
    assert isinstance(attacked, PGD)
    f.eval()
    target = attack.make_target(f, x, Y, DRAW)
    start = attacked.start(attacked.threat, x, DRAW)
    assert (attacked.loss(f(x_adv), target) > attacked.loss(f(start), target)).all()
    assert torch.equal(x_adv, attacked(f, x, target, rng=DRAW))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 10**6))
def test_another_class_is_independent_of_the_batch(labels: list[int], seed: int) -> None:
    pool, y = torch.tensor([0, 0, 1, 2, 2, 3]), torch.tensor(labels)
    rng = KeyedRNG(torch.arange(len(y)) + 7, seed, "latent")
    places = another_class(pool, y, rng)
    assert (pool[places] != y).all()
    for i in range(len(y)):
        row = torch.tensor([i])
        assert torch.equal(another_class(pool, y[row], rng.select(row)), places[row])


def test_every_other_image_is_equally_likely() -> None:
    pool, y = torch.tensor([0, 1, 1, 0, 2]), torch.zeros(6000, dtype=torch.int64)
    counts = Counter(another_class(pool, y, draw_for(y)).tolist())
    assert counts.keys() == {1, 2, 4}
    assert all(abs(count - 2000) < 5 * (6000 * 2 / 9) ** 0.5 for count in counts.values())
    restarted = another_class(pool, y, draw_for(y).fold_in(restart=1))
    assert not torch.equal(restarted, another_class(pool, y, draw_for(y)))


def test_another_class_with_one_class_raises() -> None:
    with pytest.raises(InputError, match=r"3 images.*class 1"):
        another_class(torch.tensor([1, 1, 1]), torch.tensor([0, 1]), draw_for(Y[:2]))


def test_another_class_returns_the_drawn_image() -> None:
    pool = gray(8)
    labels = torch.arange(8) % 4
    found = AnotherClass(pool, labels)(nn.Identity(), X, Y, DRAW)
    assert torch.equal(found, pool[another_class(labels, Y, DRAW)])


def test_view_of_a_model_without_the_part_raises() -> None:
    network = classifier()
    with pytest.raises(InputError, match=r"Sequential has no defense.*Defended"):
        reconstruction(network)
    with pytest.raises(InputError, match=r"Sequential has no defense.*Defended"):
        latent(network)
    with pytest.raises(InputError, match="Sequential has no encoder"):
        latent(defended())
    with pytest.raises(InputError, match=r"Sequential has no feature layers.*Guide"):
        Features("0")(network)
    with pytest.raises(InputError, match="'77'"):
        Features("77")(Guide(network))(X.float())


def test_names_tell_the_settings() -> None:
    attack = WithTarget(feature_attack(Linf("8/255"), 40, 0.01), clean)
    assert str(attack) == "PGD-40(Linf:8/255, step=0.01, loss=mse, start=random_start) at clean"
    spoiling = reconstruction_attack(Linf(0.3), 40, 0.01)
    assert str(spoiling) == "PGD-40(Linf:0.3, step=0.01, loss=ce + 1.0 mse, start=random_start)"
    pool = AnotherClass(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]))
    assert str(pool) == str(AnotherClass(torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])))
    assert str(pool).startswith("another class of 2 images ")
    assert str(pool) != str(AnotherClass(torch.ones(2, 1, 2, 2), torch.tensor([0, 1])))
    assert str(Features("stages.2")) == "features at stages.2"
    assert Trial("features", attack, Linf("8/255"), restarts=2).gradients() == 80


def test_feature_attack_lowers_accuracy_in_a_trial() -> None:
    """What the attack does to the features reaches the logits, though it never saw a label."""
    model = defended()
    attack = WithTarget(feature_attack(Linf(0.3), 10, 0.1), clean)
    x_adv = attack(Features("2")(model), X, Y, rng=DRAW)
    x_other = attack(Features("2")(model), X, (Y + 1) % 4, rng=DRAW)
    assert torch.equal(x_adv, x_other)
    y = model(X).argmax(1)
    assert (ce(model(x_adv), y) - ce(model(X), y)).abs().min() > 0
