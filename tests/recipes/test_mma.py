"""MMA against arXiv 1812.02637: exact on a linear classifier of two classes, whose margins have a closed form."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from helpers import mma_process
from helpers.plain_recipes import steps
from helpers.torchrun import in_two_processes
from helpers.toy_networks import toy_images
from safetensors.torch import load_file
from torch import Tensor, nn

from forefend.attacks.pgd import PGD
from forefend.checks import InputError
from forefend.recipes import MMA
from forefend.recipes.base import Batch, Networks
from forefend.recipes.state import TrainState
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import L2, Linf

HINGE = 0.05
RECIPE = MMA(threat=Linf(HINGE), bisections=40, clean_weight=0.25)
INDEX = torch.tensor([7, 2, 40, 11, 5, 0, 13, 21, 30, 33, 3, 9])


def linear() -> nn.Sequential:
    """Logits (0, w·x + b) of 3 × 3 images."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double()
    w = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        network[1].weight.copy_(torch.stack([torch.zeros(9), w]))
        network[1].bias.copy_(torch.tensor([0.0, -float(w.sum()) / 2]))
    return network


def case() -> tuple[nn.Sequential, Batch, Tensor, Tensor]:
    """A classifier, images right and wrong, near the boundary and beyond the hinge; who is right, and how far."""
    f = linear()
    w = f[1].weight[1].detach()
    wanted = torch.tensor([0.01, -0.02, 0.03, -0.04, 0.08, -0.09, 0.004, 0.02, -0.03, 0.06, 0.045, -0.001])
    # Along the sign of w an image at distance d stands at ± d from the boundary in l∞.
    x = (0.5 + wanted[:, None].double() * w.sign()).view(-1, 1, 3, 3)
    signed = (f(x)[:, 1] - f(x)[:, 0]).detach() / w.abs().sum()
    torch.testing.assert_close(signed, wanted.double())
    y = (signed > 0).long()
    y[[1, 7]] = 1 - y[[1, 7]]
    right = torch.ones(len(y), dtype=torch.bool)
    right[[1, 7]] = False
    return f, Batch(x, y, INDEX, 0.0, KeyedRNG(INDEX, 0, "train")), right, signed.abs()


def state_of(least: float = 0.005) -> TrainState:
    return TrainState(per_image={"radius": torch.full((41,), least, dtype=torch.float64)})


def step(recipe: MMA, f: nn.Module, batch: Batch, state: TrainState) -> Tensor:
    ((name, loss),) = steps(recipe, Networks(classifier=f), batch, state)
    assert name == "classifier"
    return loss


def test_mma_radii_are_exact_margins_by_index() -> None:
    f, batch, right, distance = case()
    state = state_of()
    step(RECIPE, f, batch, state)
    capped = distance.clamp_max(1.05 * HINGE)
    torch.testing.assert_close(state.per_image["radius"][INDEX[right]], capped[right], atol=1e-9, rtol=0)
    assert (distance[right] > 1.05 * HINGE).sum() == 3
    others = torch.ones(41, dtype=torch.bool)
    others[INDEX[right]] = False
    assert (
        state.per_image["radius"][others] == 0.005
    ).all()  # wrong images keep theirs, and so do images not in the batch


def test_mma_loss_matches_its_definition() -> None:
    f, batch, right, distance = case()
    loss = step(RECIPE, f, batch, state_of())
    towards = torch.where(batch.y == 1, -1.0, 1.0).double()[:, None] * f[1].weight[1].detach().sign()
    total = torch.zeros((), dtype=torch.float64)
    for i, x in enumerate(batch.x):
        if not right[i]:
            total = total + F.cross_entropy(f(x[None]), batch.y[i : i + 1])
        elif distance[i] < HINGE:
            at_boundary = x.flatten() + distance[i] * towards[i]
            total = total + F.cross_entropy(f(at_boundary.view(1, 1, 3, 3)), batch.y[i : i + 1])
    assert ((distance >= HINGE) & right).sum() == 3
    expected = 0.75 * total / len(batch.x) + 0.25 * F.cross_entropy(f(batch.x), batch.y)
    torch.testing.assert_close(loss, expected, rtol=1e-7, atol=0)
    got, plain = (torch.autograd.grad(one, list(f.parameters())) for one in (loss, expected))
    for a, b in zip(got, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bisections", [1, 3, 10])
def test_mma_bisection_halves_the_error(bisections: int) -> None:
    f, batch, right, distance = case()
    state = state_of()
    step(dataclasses.replace(RECIPE, bisections=bisections), f, batch, state)
    error = state.per_image["radius"][INDEX] - distance.clamp_max(1.05 * HINGE)
    assert (error[right] > -1e-12).all()  # the upper end: the image there is across the boundary
    assert (error[right] <= 1.05 * HINGE / 2**bisections + 1e-12).all()


def test_mma_search_radius_is_at_least_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        PGD, "__call__", lambda self, f, x, y, rng: seen.append((self.threat.radius, self.step_size)) or x
    )
    f, batch, _, _ = case()
    state = state_of(0.0)
    state.per_image["radius"][INDEX] = torch.linspace(0, 0.03, 12, dtype=torch.float64)
    step(RECIPE, f, batch, state)
    expected = torch.linspace(0, 0.03, 12, dtype=torch.float64).clamp_min(0.005)
    torch.testing.assert_close(seen[0][0], expected)
    torch.testing.assert_close(seen[0][1], 0.25 * expected)


def test_mma_init_state_of_a_subset_is_the_least_radius() -> None:
    part = toy_images(40).subset(torch.arange(10, 30))
    radius = RECIPE.init_state(part)["radius"]
    assert radius.shape == (30,)
    assert (radius == torch.tensor(0.005)).all()


def test_mma_with_l2_raises() -> None:
    with pytest.raises(InputError, match=r"L2:0\.5, expected l∞"):
        MMA(threat=L2(0.5))


@pytest.mark.slow
def test_mma_in_two_processes_matches_one(tmp_path: Path) -> None:
    in_two_processes(mma_process.__file__, str(tmp_path))
    alone = mma_process.radii(Accelerator(cpu=True))
    for number in (0, 1):
        halves = load_file(tmp_path / f"{number}.safetensors")
        # Averaged gradients round otherwise; a margin follows them, to a step of its bisection.
        torch.testing.assert_close(halves["radius"], alone, rtol=0, atol=1e-4)
        assert torch.equal(halves["stopped"], halves["radius"])
    assert (alone != 0.005).sum() > 20
