from __future__ import annotations

import copy
import gzip
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from forefend.attacks.wasserstein import (
    FrankWolfeWasserstein,
    ProjectedWasserstein,
    at_random,
    at_x,
    maximizer,
    projected,
    unchanged,
)
from forefend.checks import InputError
from forefend.losses import ce, margin
from forefend.models.classifiers.pretrained import load_weights
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.transport import (
    apply_coupling,
    gather_windows,
    identity_coupling,
    offset_lengths,
    project_to_box,
    transport_cost,
    valid_offsets,
)
from forefend.threat_models.wasserstein import Wasserstein

optimize = pytest.importorskip("scipy.optimize")

THREAT = Wasserstein(0.1, exact=100)
PROJECTED = ProjectedWasserstein(THREAT, steps=10, step_size=0.1)
FRANK_WOLFE = FrankWolfeWasserstein(THREAT, steps=10)
ATTACKS = pytest.mark.parametrize("attack", [PROJECTED, FRANK_WOLFE], ids=["projected", "frank-wolfe"])
STARTS = pytest.mark.parametrize("start", [at_x, at_random])
seeds = st.integers(0, 2**31)


def images(seed: int, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def weights_like(x: Tensor, seed: int = 0) -> Tensor:
    return torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(seed + 77), dtype=x.dtype)


def draw_for(x: Tensor, seed: int = 0) -> KeyedRNG:
    return KeyedRNG(torch.arange(len(x)), seed)


def value(prediction: Tensor, target: Any) -> Tensor:
    """The prediction is the loss: of a linear model, a linear programme."""
    return prediction


def dense(x: Tensor, window: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One image's moves that stay on it: their place in the coupling, and source sums, target sums, offset_lengths."""
    shape = (x.shape[1], window**2, x[0, 0].numel())
    places = valid_offsets(x, window)[0].expand(shape).flatten().nonzero().flatten()
    count, pixels = len(places), x[0].numel()
    rows, columns = np.zeros((pixels, count)), np.zeros((pixels, count))
    for number, place in enumerate(places.tolist()):
        one = torch.zeros(x.shape[1] * window**2 * shape[2], dtype=x.dtype)
        one[place] = 1
        coupling = one.view(1, *shape)
        rows[:, number] = coupling.sum(2).flatten().numpy()
        columns[:, number] = apply_coupling(coupling, x).flatten().numpy()
    length = offset_lengths(window, x).expand(shape).flatten()[places].numpy()
    return places.numpy(), rows, columns, length


def optimum(weights: Tensor, x: Tensor, threat: Wasserstein, ceiling: float = 1.0) -> float:
    """The largest value of <weights, x_adv> in the ball and box, by a linear programme."""
    _, rows, columns, length = dense(x, threat.window)
    found = optimize.linprog(
        -weights.flatten().numpy() @ columns,
        A_eq=rows,
        b_eq=x.flatten().numpy(),
        A_ub=np.vstack([columns, length]),
        b_ub=np.append(np.full(len(columns), ceiling), float(threat.budget(x))),
    )
    assert found.status == 0
    return -float(found.fun)


def gain(attack: Any, x: Tensor, seed: int) -> float:
    """What share of the possible gain of a linear model an attack finds."""
    weights = weights_like(x, seed)

    def f(batch: Tensor) -> Tensor:
        return (batch * weights).flatten(1).sum(1)

    x_adv = attack(f, x, None, rng=draw_for(x))
    assert attack.threat.allows(x_adv, x).all()
    best, clean = optimum(weights, x, attack.threat), float(f(x))
    return (float(f(x_adv)) - clean) / (best - clean)


@ATTACKS
@pytest.mark.parametrize("radius", [0.03, 0.1])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_optimum_of_a_linear_model_is_reached(attack: Any, radius: float, channels: int) -> None:
    attack = replace(attack, threat=Wasserstein(radius), steps=40, loss=value)
    for seed in range(2):
        assert gain(attack, images(seed, (1, channels, 6, 6), 0.2, 0.5), seed) > 0.98


@ATTACKS
@pytest.mark.parametrize(("low", "high", "radius"), [(0, 1, 0.1), (-2, 1.5, 0.2), (-1, 3, 0.1)])
def test_the_optimum_is_reached_where_pixels_fill_up(attack: Any, low: float, high: float, radius: float) -> None:
    """The last case is an image of black and white with little between: there is hardly any room."""
    attack = replace(attack, threat=Wasserstein(radius), steps=60, loss=value)
    assert gain(attack, images(3, (1, 1, 7, 7), low, high), 3) > 0.95


def test_full_pixels_matter_in_these_cases() -> None:
    x = images(3, (1, 1, 7, 7), -1, 3)
    weights = weights_like(x, 3)
    assert optimum(weights, x, THREAT) < optimum(weights, x, THREAT, ceiling=9) - 0.1


@given(seed=seeds, share=st.sampled_from([0.0, 0.01, 0.3, 5.0]))
@settings(max_examples=12)
def test_a_projection_is_the_nearest_affordable_coupling(seed: int, share: float) -> None:
    """The optimum of ½|π − wanted|² by scipy's SLSQP, with the moves inside the image as its variables."""
    x = images(seed, (1, 1, 2, 3), -0.3, 1)
    wanted = (
        identity_coupling(x, 3) + 0.4 * torch.randn(1, 1, 9, 6, generator=torch.Generator().manual_seed(seed)).double()
    )
    budget = share * THREAT.budget(x)
    mine = projected(wanted, x, budget, halvings=45)
    places, rows, _, length = dense(x, 3)
    target = wanted.flatten()[places].numpy()
    found = optimize.minimize(
        lambda p: ((p - target) ** 2).sum() / 2,
        np.clip(identity_coupling(x, 3).flatten()[places].numpy(), 0, None),
        jac=lambda p: p - target,
        bounds=[(0, None)] * len(places),
        constraints=[
            {"type": "eq", "fun": lambda p: rows @ p - x.flatten().numpy(), "jac": lambda p: rows},
            {"type": "ineq", "fun": lambda p: float(budget) - length @ p, "jac": lambda p: -length},
        ],
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    got = mine.flatten()[places].numpy()
    np.testing.assert_allclose(got, found.x, atol=2e-5)
    assert ((got - target) ** 2).sum() / 2 <= found.fun + 1e-7
    assert float(transport_cost(mine)) <= float(budget) + 1e-9


@given(seed=seeds)
@settings(max_examples=20)
def test_a_projection_meets_its_conditions(seed: int) -> None:
    """Karush, Kuhn and Tucker: no move of mass inside the budget comes nearer to what was wanted."""
    x = images(seed, (2, 2, 4, 4), -0.3, 1)
    wanted = (
        identity_coupling(x, 5)
        + 0.2 * torch.randn(2, 2, 25, 16, generator=torch.Generator().manual_seed(seed)).double()
    )
    budget = THREAT.budget(x)
    mine = projected(wanted, x, budget, halvings=45)
    torch.testing.assert_close(mine.sum(2), x.flatten(2), atol=1e-9, rtol=0)
    assert (mine >= 0).all()
    assert (mine[~valid_offsets(x, 5).expand_as(mine)] == 0).all()
    assert (transport_cost(mine) <= budget + 1e-9).all()
    for seed_of_other in range(5):
        other = maximizer(gather_windows(torch.randn_like(x), 5), x, budget, 0.1 * 3**seed_of_other)
        # The angle between what was cut off and every feasible direction is not acute.
        assert (((wanted - mine) * (other - mine)).sum((1, 2, 3)) <= 1e-7).all()


def test_what_is_affordable_already_is_projected_for_free() -> None:
    x = images(0, (2, 1, 4, 4))
    coupling = at_random(THREAT, x, draw_for(x)) / 2 + identity_coupling(x, 5) / 2
    torch.testing.assert_close(projected(coupling, x, THREAT.budget(x)), coupling, atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [1, 2])
@given(seed=seeds, radius=st.sampled_from([0.01, 0.1, 0.5]))
@settings(max_examples=8)
def test_without_entropy_frank_wolfe_solves_the_linear_programme(channels: int, seed: int, radius: float) -> None:
    x = images(seed, (1, channels, 4, 4), -0.3, 1)
    uphill, threat = weights_like(x, seed), Wasserstein(radius)
    uphill = uphill / uphill.abs().max()
    best = optimum(uphill, x, threat, ceiling=1e9)
    misses = []
    for entropy in (1e-1, 1e-2, 1e-3, 1e-5):
        coupling = maximizer(gather_windows(uphill[None], 5), x, threat.budget(x), entropy, halvings=50)
        assert float(transport_cost(coupling)) <= float(threat.budget(x)) + 1e-9
        torch.testing.assert_close(coupling.sum(2), x.flatten(2))
        misses.append(best - float((uphill * apply_coupling(coupling, x)).sum()))
    assert misses[-1] == pytest.approx(0, abs=1e-4 * float(x.sum()))
    assert all(later <= sooner + 1e-9 for sooner, later in pairwise(misses))


def test_the_softened_choice_by_hand() -> None:
    """One pixel of mass 0.5 beside an empty one that gains 1: at entropy 1 and no price, it splits as e⁰ to e¹."""
    x = torch.tensor([0.5, 0.0], dtype=torch.float64).view(1, 1, 1, 2)
    uphill = gather_windows(torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2), 3)
    free = maximizer(uphill, x, torch.tensor([9.0]).double(), 1.0)
    gone = 0.5 * 2.718281828459045 / 3.718281828459045
    torch.testing.assert_close(apply_coupling(free, x).flatten(), torch.tensor([0.5 - gone, gone]).double())
    tight = maximizer(uphill, x, torch.tensor([0.1]).double(), 1.0)
    torch.testing.assert_close(apply_coupling(tight, x).flatten(), torch.tensor([0.4, 0.1]).double())


@ATTACKS
@STARTS
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_images_stay_inside_the_threat_model(attack: Any, start: Any, channels: int, kind: torch.dtype) -> None:
    x = images(1, (3, channels, 6, 6), -1, 2).to(kind)
    x[0] = 0  # a black image has nothing to move
    f = nn.Sequential(nn.Flatten(), nn.Linear(channels * 36, 3)).to(kind)
    for radius in (0.0, 0.03, 2.0):
        threat = Wasserstein(radius, exact=3)
        x_adv = replace(attack, threat=threat, start=start)(f, x, torch.tensor([0, 1, 2]), rng=draw_for(x))
        assert threat.allows(x_adv, x).all()
        assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
        assert torch.equal(x_adv[0], x[0])
        assert bool((x_adv[1:] != x[1:]).any()) == (radius > 0)


def test_a_step_climbs_where_the_hand_would() -> None:
    """The middle of three pixels gains: one step of 0.1 brings 0.05 from each side, and not what the budget forbids."""
    x = torch.tensor([0.5, 0.2, 0.5], dtype=torch.float64).view(1, 1, 1, 3)
    weights = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).view(1, 1, 1, 3)
    attack = ProjectedWasserstein(Wasserstein(0.5, window=3, exact=1), 1, 0.1, loss=value)

    def f(batch: Tensor) -> Tensor:
        return (batch * weights).flatten(1).sum(1)

    x_adv = attack(f, x, None, rng=draw_for(x))
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.45, 0.3, 0.45]).double(), atol=1e-6, rtol=0)
    x_adv = replace(attack, threat=Wasserstein(0.05, window=3))(f, x, None, rng=draw_for(x))
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.47, 0.26, 0.47]).double(), atol=1e-5, rtol=0)


@ATTACKS
def test_result_of_an_image_is_independent_of_its_batch(attack: Any, net: nn.Module, y: Tensor) -> None:
    net.double().eval()
    x = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    attack = replace(attack, steps=4, start=at_random)
    rng = KeyedRNG(torch.tensor([40, 3, 17, 0, 2, 9]), seed=1)
    whole = attack(net, x, y, rng=rng)
    for rows in ([5, 4, 3, 2, 1, 0], [2]):
        part = torch.tensor(rows)
        got = attack(net, x[part], y[part], rng=rng.select(part))
        torch.testing.assert_close(got, whole[part], atol=1e-7, rtol=0)


@ATTACKS
def test_radius_per_image_is_supported(attack: Any, net: nn.Module, y: Tensor) -> None:
    net.double().eval()
    x, radii = torch.rand(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0.0, 0.02, 0.2], dtype=torch.float64)
    together = replace(attack, threat=Wasserstein(radii), steps=3)(net, x, y[:3], rng=draw_for(x))
    for i in range(3):
        alone = replace(attack, threat=Wasserstein(float(radii[i])), steps=3)
        got = alone(net, x[i : i + 1], y[i : i + 1], rng=KeyedRNG(torch.tensor([i])))
        torch.testing.assert_close(together[i : i + 1], got, atol=1e-7, rtol=0)


@ATTACKS
def test_attack_restores_the_network(attack: Any, net: nn.Module, x: Tensor, y: Tensor) -> None:
    list(net.parameters())[1].requires_grad = False
    net[1].training = False
    before, clean = copy.deepcopy(net), x.clone()
    with torch.no_grad():
        replace(attack, steps=2)(net, x, y, rng=draw_for(x))
    assert torch.equal(x, clean)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == [p.requires_grad for p in before.parameters()]
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    for mine, its in zip(net.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(mine, its)


@ATTACKS
def test_steps_equal_the_number_of_gradients(attack: Any, x: Tensor, y: Tensor) -> None:
    seen_by_f = []

    def counting(batch: Tensor) -> Tensor:
        seen_by_f.append(batch.detach().clone())
        return batch.flatten(1)[:, :4]

    replace(attack, steps=5)(counting, x, y, rng=draw_for(x))
    assert len(seen_by_f) == 5
    torch.testing.assert_close(seen_by_f[0], x)
    assert all(batch.min() >= 0 and batch.max() <= 1 for batch in seen_by_f)


@ATTACKS
def test_random_start_depends_on_the_rng(attack: Any, x: Tensor) -> None:
    threat = Wasserstein(0.1)
    coupling = at_random(threat, x, draw_for(x))
    torch.testing.assert_close(transport_cost(coupling), threat.budget(x))
    assert not torch.equal(coupling, at_random(threat, x, draw_for(x, seed=1)))
    f, y = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), torch.zeros(6, dtype=torch.int64)
    random = replace(attack, start=at_random, steps=2)
    runs = [random(f, x, y, rng=draw_for(x, seed)) for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@ATTACKS
def test_every_field_is_part_of_the_identity(attack: Any) -> None:
    changes: dict[str, Any] = {
        "threat": [Wasserstein(0.2), Wasserstein(0.1, window=7, exact=100)],
        "steps": [11],
        "step_size": [0.01],
        "entropy": [0.01],
        "loss": [margin],
        "start": [at_random],
    }
    names = {field.name for field in fields(attack)}
    assert names <= changes.keys()
    variants = [replace(attack, **{name: new}) for name in names for new in changes[name]]
    assert len({str(one) for one in [attack, *variants]}) == len(variants) + 1


def test_identities_are_readable_and_stable(python: Callable[..., str]) -> None:
    first = "ProjectedWasserstein-10(Wasserstein:0.1(window=5, exact=100), step=0.1, loss=ce, start=at_x)"
    second = "FrankWolfeWasserstein-10(Wasserstein:0.1(window=5, exact=100), entropy=0.001, loss=ce, start=at_x)"
    assert [str(PROJECTED), str(FRANK_WOLFE)] == [first, second]
    program = (
        "from forefend.attacks import ProjectedWasserstein; "
        "print(ProjectedWasserstein('Wasserstein:0.1(window=5, exact=100)', 10, 0.1))"
    )
    assert python(program) == first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(PROJECTED, steps=0), "0 steps"),
        (lambda: replace(FRANK_WOLFE, steps=-1), "-1 steps"),
        (lambda: replace(FRANK_WOLFE, entropy=0), "entropy.* 0:"),
        (lambda: replace(FRANK_WOLFE, entropy=float("nan")), "entropy.*nan"),
    ],
)
def test_bad_settings_raise(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_projection_to_the_box_costs_distance() -> None:
    """The published reading lets pixels exceed 1; with project_to_box none does, and the budget is spent again."""
    x = images(5, (2, 1, 6, 6), -1, 3)
    wanted = identity_coupling(x, 5) + 0.5 * gather_windows(weights_like(x)[None], 5)
    budget = THREAT.budget(x)
    loose, boxed = (projected(wanted, x, budget, repair=mend) for mend in (unchanged, project_to_box))
    assert apply_coupling(loose, x).amax() > 1.1
    assert apply_coupling(boxed, x).amax() <= 1 + 1e-9
    assert (transport_cost(boxed) > transport_cost(project_to_box(loose, x)) + 0.01).all()
    assert (transport_cost(boxed) <= budget + 1e-9).all()


def mnist(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    with gzip.open(folder / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + count * 784), np.uint8, offset=16).copy()
    with gzip.open(folder / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8).copy()
    return torch.tensor(pixels).view(-1, 1, 28, 28) / 255, torch.tensor(labels).long()


@ATTACKS
def test_published_classifier_loses_accuracy_inside_the_ball(attack: Any, real_data: Path) -> None:
    """Another group's MNIST network is right on all 10 images; half a pixel of transport leaves it few of them."""
    f = load_weights("smallcnn", real_data / "classifiers" / "secml-mnist-smallcnn.pth", mean=0, std=1).eval()
    x, y = mnist(real_data, 10)
    assert (f(x).argmax(1) == y).all()
    threat = Wasserstein(0.5, exact=10)
    x_adv = replace(attack, threat=threat, steps=10, loss=ce)(f, x, y, rng=draw_for(x))
    assert threat.allows(x_adv, x).all()
    assert int((f(x_adv).argmax(1) == y).sum()) <= 4
