"""Stopping at the first success gives the verdicts of a plain loop for less computation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, toy_images
from torch import Tensor, nn

from forefend.attacks.base import at_step
from forefend.attacks.pgd import PGD, fgsm, from_x
from forefend.data import ImageDataset
from forefend.evaluation.attack_runner import Job, obey, run_all_steps, stop_at_success
from forefend.losses import margin
from forefend.runtime.batch_size import AdaptiveBatchSize
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.base import ThreatModel
from forefend.threat_models.lp import L2, Linf

IMAGES = toy_images(60)


def trained() -> nn.Module:
    """A toy classifier after a few steps on its images, in float64 so that no verdict hangs on the batch."""
    x, y, _ = IMAGES.batch(torch.arange(len(IMAGES)))
    network = classifier().double()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x.double()), y).backward()
        optimizer.step()
    return network.requires_grad_(False)


NETWORK = trained()


@dataclass
class Counted:
    """A network that counts the images it is shown, apart for gradients and verdicts."""

    network: nn.Module
    gradients: int = 0
    verdicts: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.gradients += len(x)
        return self.network(x)

    def wrong(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        self.verdicts += len(x)
        with torch.no_grad():
            return self.network(x).argmax(1) != y


def fetch_from(images: ImageDataset) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    def fetch(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, index = images.batch(rows)
        return x.double(), y, index

    return fetch


def job(attack: Any, restarts: int = 3, size: int = 16, network: Counted | None = None, f: Any = None) -> Job:
    model = network or Counted(NETWORK)
    room = AdaptiveBatchSize(size)
    return Job("a trial", attack, attack.threat, restarts, f or model, model.wrong, fetch_from(IMAGES), room, 5)


def correct_rows() -> Tensor:
    x, y, _ = fetch_from(IMAGES)(torch.arange(len(IMAGES)))
    with torch.no_grad():
        return (NETWORK(x).argmax(1) == y).nonzero().squeeze(1)


def verdicts(run: Any, job: Job, rows: Tensor) -> dict[int, bool]:
    found: dict[int, bool] = {}
    for index, lost in run(job, rows):
        assert not found.keys() & set(index)  # nobody is judged twice
        found |= dict(zip(index, lost, strict=True))
    return found


def plain_loop(job: Job, rows: Tensor) -> dict[int, bool]:
    """The plain loop: each image alone, through every step of every restart."""
    found = {}
    for row in rows:
        x, y, index = job.fetch(row[None])
        lost = False
        for restart in range(job.restarts):
            rng = KeyedRNG(index, job.seed, job.name, restart)
            state = job.attack.begin(x, rng)  # type: ignore[attr-defined]
            for step in range(job.attack.steps):  # type: ignore[attr-defined]
                lost |= bool(job.misclassified(state["x_adv"], y, index))
                at = at_step(rng, job.attack, step)  # type: ignore[arg-type]
                state = job.attack.advance(job.f, state, x, y, rng=at)  # type: ignore[attr-defined]
            lost |= bool(job.misclassified(state["x_adv"], y, index))
        found[int(index)] = lost
    return found


ATTACKS = [
    PGD(Linf(0.18), 5, 0.06),
    PGD(Linf(0.2), 7, 0.15, loss=margin),
    PGD(L2(0.8), 6, 0.3),
    fgsm(Linf(0.2)),
    PGD(Linf(0.2), 4, 0.07, start=from_x),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
@pytest.mark.parametrize("size", [7, 100])
def test_stop_at_success_equals_the_plain_loop(attack: PGD, size: int) -> None:
    rows = correct_rows()
    plain = plain_loop(job(attack), rows)
    assert verdicts(stop_at_success, job(attack, size=size), rows) == plain
    assert 0 < sum(plain.values()) < len(plain)


def test_stop_at_success_spends_less_on_broken_images() -> None:
    attack, rows = PGD(Linf(0.2), 10, 0.05), correct_rows()
    early, late = Counted(NETWORK), Counted(NETWORK)
    lost = verdicts(stop_at_success, job(attack, 4, 16, early), rows)
    share = 1 - sum(lost.values()) / len(lost)
    verdicts(run_all_steps, job(attack, 4, 16, late), rows)
    survivors = len(lost) - sum(lost.values())
    assert early.gradients >= survivors * 40  # who stands has gone through it all
    assert early.gradients < late.gradients
    assert early.gradients < len(rows) * 40 * (share + 0.5 * (1 - share))


def test_stop_at_success_keeps_the_batch_full() -> None:
    sizes: list[int] = []

    def f(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return NETWORK(x)

    rows = correct_rows()
    verdicts(stop_at_success, job(PGD(Linf(0.19), 8, 0.05), 2, 16, f=f), rows)
    full = [size >= 14 for size in sizes]
    assert full.index(False) > len(full) / 2
    assert not any(full[full.index(False) :])  # then the last are on their own


def test_stop_at_success_ignores_wrong_proposals() -> None:
    """The model decides, whatever `f` returns for the iterates."""
    rows = correct_rows()
    attack = PGD(Linf(0.2), 5, 0.08)

    def liar(x: Tensor) -> Tensor:
        return -1000 * NETWORK(x)

    assert not any(verdicts(stop_at_success, job(PGD(Linf(0), 3, 0.0), f=liar), rows).values())
    half = classifier().bfloat16().eval()
    half.load_state_dict(NETWORK.state_dict())
    proposed = verdicts(stop_at_success, job(attack, f=lambda x: half(x.bfloat16()).double()), rows)
    network = Counted(NETWORK)
    judged = verdicts(stop_at_success, job(attack, network=network), rows)
    agree = sum(proposed[i] == judged[i] for i in judged) / len(judged)
    assert agree > 0.9


@pytest.mark.parametrize("run", [stop_at_success, run_all_steps])
def test_run_with_little_memory_has_equal_verdicts(run: Any) -> None:
    rows, attack = correct_rows(), PGD(Linf(0.2), 5, 0.08)

    def small(x: Tensor) -> Tensor:
        if len(x) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return NETWORK(x)

    tight = job(attack, f=small)
    assert verdicts(run, tight, rows) == verdicts(run, job(attack), rows)
    assert tight.batch_size.size == 4


def test_run_all_steps_evaluates_only_the_returned_image() -> None:
    """An iterate that is misclassified does not count, only the image that the attack returns."""

    @dataclass(frozen=True)
    class ThereAndBack:
        threat: ThreatModel
        steps: int = 2

        def begin(self, x: Tensor, rng: KeyedRNG) -> dict[str, Tensor]:
            return {"x_adv": x}

        def advance(self, f: Any, state: Any, x: Tensor, target: Any, *, rng: KeyedRNG) -> dict[str, Tensor]:
            f(state["x_adv"])
            return {"x_adv": torch.where(rng.step.view(-1, 1, 1, 1) == 0, 1 - x, x)}  # type: ignore[union-attr]

        def finish(self, state: dict[str, Tensor]) -> Tensor:
            return state["x_adv"]

        def __call__(self, f: Any, x: Tensor, target: Any, *, rng: KeyedRNG) -> Tensor:
            return x

    rows = correct_rows()
    attack = ThereAndBack(Linf(1))
    assert any(verdicts(stop_at_success, job(attack), rows).values())
    assert not any(verdicts(run_all_steps, job(attack), rows).values())


def test_stop_at_success_ignores_iterates_outside() -> None:
    @dataclass(frozen=True)
    class Peeking:
        """Looks at an image far away, and returns the clean one."""

        threat: ThreatModel
        steps: int = 1

        def begin(self, x: Tensor, rng: KeyedRNG) -> dict[str, Tensor]:
            return {"x_adv": x}

        def advance(self, f: Any, state: Any, x: Tensor, target: Any, *, rng: KeyedRNG) -> dict[str, Tensor]:
            f(1 - x)
            return {"x_adv": x}

        def finish(self, state: dict[str, Tensor]) -> Tensor:
            return state["x_adv"]

    assert not any(verdicts(stop_at_success, job(Peeking(Linf(0.01))), correct_rows()).values())


def test_run_all_steps_random_model_depends_on_seed() -> None:
    def noisy(x: Tensor) -> Tensor:
        return NETWORK(x + 0.1 * torch.randn_like(x))

    rows, attack = correct_rows(), PGD(Linf(0.18), 3, 0.1)
    model = Counted(NETWORK)
    model.network = noisy  # type: ignore[assignment]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = verdicts(run_all_steps, job(attack, network=model), rows)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert verdicts(run_all_steps, job(attack, network=model), rows) == first
    assert verdicts(run_all_steps, replace(job(attack, network=model), seed=6), rows) != first


def test_obey_projects_rounding_and_refuses_more() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    inside = obey(Linf(0.1), x + 0.1 + 5e-7, x, "a trial")
    assert bool(Linf(0.1).allows(inside, x).all())
    with pytest.raises(RuntimeError, match="left its threat model"):
        obey(Linf(0.1), x + 0.11, x, "a trial")
