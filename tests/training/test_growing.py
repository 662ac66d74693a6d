from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.spy_recipe import Spy
from helpers.toy_networks import (
    CLASSES,
    Stopping,
    held,
    preprocessor,
    same,
    toy_cast,
    toy_images,
    train,
    trained,
    untouched,
)
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import augmentation
from forefend.models.classifiers import build
from forefend.models.guide import Guide
from forefend.recipes import MMA, RECIPES, RTFE, Natural
from forefend.recipes.base import Batch, Memory, Networks, Recipe
from forefend.runtime.run_folder import Run
from forefend.threat_models.lp import L2, Linf
from forefend.threat_models.wasserstein import Wasserstein
from forefend.training.catastrophic_overfitting import Monitor
from forefend.training.config import TrainingConfig
from forefend.training.crafting import prepared_bf16
from forefend.training.growing import FULL, SIZES, Sizes
from forefend.training.inner_attacks import Gradual, WarmStarted

GROWING = SIZES["growing"]
SMALL = RTFE(Linf(0.1), steps=1, epochs=2, batch_size=16)
SPANS = [3, 3, 4, 4, 6, 6]  # the side at each of six steps on images of 6 × 6: half, three quarters (4.5), all


def pooled(seed: int = 0, outputs: int = CLASSES) -> nn.Sequential:
    """Images of any size to logits, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(*body, nn.Linear(4, outputs)).eval()


def any_size(**others: Any) -> Networks:
    """A cast that takes images of every size, but for the `others`."""
    guides = [Guide(pooled(1), "guide 1"), Guide(pooled(2), "guide 2")]
    networks = Networks(preprocessor(3), guides, pooled(4), nn.Sequential(pooled(5, 1), nn.Flatten(0)))
    return replace(networks, **others)


@pytest.mark.parametrize(
    ("size", "sides"), [((28, 28), [14, 21, 28]), ((32, 32), [16, 24, 32]), ((5, 9), [2, 4, 5]), ((1, 1), [1, 1, 1])]
)
def test_the_sides_in_equal_spans(size: tuple[int, int], sides: list[int]) -> None:
    moments = [0.0, 0.33, 0.34, 0.66, 0.67, 1 - 1e-9]
    assert [GROWING.at(moment, size)[0] for moment in moments] == [side for side in sides for _ in range(2)]
    assert [FULL.at(moment, size) for moment in moments] == [size] * 6
    assert GROWING.at(0.0, (8, 20)) == (4, 10)
    assert Sizes((0.25, 1.0)).at(0.4, (40, 40)) == (10, 10)


def test_on_the_way_are_the_smaller_sizes_once_each() -> None:
    assert GROWING.smaller((28, 28)) == [(14, 14), (21, 21)]
    assert Sizes((0.5, 0.5, 1.0)).smaller((8, 8)) == [(4, 4)]
    assert FULL.smaller((8, 8)) == []
    assert GROWING.smaller((1, 1)) == []


@pytest.mark.parametrize("shares", [(), (0.5,), (0.0, 1.0), (2.0, 1.0), (-0.5, 1.0), (math.nan, 1.0), (1.0, 0.5)])
def test_shares_that_cannot_be_are_one_sentence(shares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"^Images cannot have the shares .+ at most 1, the last one 1\.$"):
        Sizes(shares)


def antialiased(old: int, new: int) -> Tensor:
    """Resizing of one line as a matrix, written plainly: a triangle two new pixels wide about each one's middle."""
    scale = old / new
    rows = [[max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * scale) / scale) for j in range(old)] for i in range(new)]
    return torch.tensor([[weight / sum(row) for weight in row] for row in rows])


def test_small_images_are_antialiased_and_stay_in_the_box(x: Tensor) -> None:
    for progress, side in ((0.0, 4), (0.5, 6)):
        small = GROWING.resized(x, progress)
        matrix = antialiased(8, side)
        torch.testing.assert_close(small, matrix @ x @ matrix.T, rtol=0, atol=1e-6)
    for side in range(1, 70):
        for white in (GROWING.resized(torch.ones(1, 1, side, side), moment) for moment in (0.0, 0.5)):
            torch.testing.assert_close(white, torch.ones_like(white))
            assert float(white.max()) <= 1
    assert torch.equal(GROWING.resized(x, 0.2)[2:3], GROWING.resized(x[2:3], 0.2))  # whatever else is in the batch


def test_full_size_is_the_very_same(x: Tensor) -> None:
    assert GROWING.resized(x, 0.7) is x
    assert FULL.resized(x, 0.0) is x


def spied(**options: Any) -> list[Batch]:
    spy = Spy([], [])
    train(spy, toy_images(), any_size(), **options)
    return spy.seen


def test_a_step_gets_its_size_and_the_last_ones_are_as_published() -> None:
    shift = augmentation("cifar-10")
    plain, growing = spied(augment=shift), spied(augment=shift, sizes=GROWING)
    assert [tuple(batch.x.shape[1:]) for batch in growing] == [(1, side, side) for side in SPANS]
    for step, (a, b) in enumerate(zip(plain, growing, strict=True)):
        assert torch.equal(a.y, b.y)
        assert torch.equal(a.index, b.index)
        assert (a.progress, a.rng.step, a.rng.purpose) == (b.progress, b.rng.step, b.rng.purpose)
        assert torch.equal(b.x, GROWING.resized(a.x, step / 6))  # after the augmentation
    assert all(torch.equal(a.x, b.x) for a, b in zip(plain[4:], growing[4:], strict=True))


def test_spans_that_are_all_of_full_size_train_the_same_weights() -> None:
    plain, spans, growing = (
        trained(train(SMALL, toy_images(), any_size(), sizes=s)) for s in (FULL, Sizes((1.0,) * 3), GROWING)
    )
    assert same(plain, spans)
    assert not same(plain, growing)


@dataclass(frozen=True)
class Judge(Spy):
    """Keeps the held-out images that it is shown."""

    hold_out: float = 0.2
    shown: list[Tensor] = field(default_factory=list)

    def validate(self, craft: Networks, batches: Iterator[Batch], memory: Memory) -> None:
        self.shown.append(torch.cat([batch.x for batch in batches]))


def test_what_is_held_out_keeps_its_size() -> None:
    plain, growing = Judge([], []), Judge([], [])
    for judge, sizes in ((plain, FULL), (growing, GROWING)):
        train(judge, toy_images(), any_size(), sizes=sizes)
    assert growing.seen[0].x.shape[2:] == (3, 3)
    assert [tuple(x.shape) for x in growing.shown] == [(8, 1, 6, 6)] * 2
    assert same(plain.shown, growing.shown)


def test_the_watch_looks_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def look(self: Monitor, networks: Networks, threat: object, batch: Batch) -> dict[str, float]:
        seen.append(tuple(batch.x.shape))
        return {"fgsm": 1.0, "pgd-10": 1.0}

    monkeypatch.setattr(Monitor, "look", look)
    train(SMALL, toy_images(), any_size(), sizes=GROWING, watch=Monitor(images=12))
    assert seen == [(12, 1, 6, 6)] * 2


@pytest.mark.parametrize("last", [1, 3, 4])
def test_resumed_in_any_span_the_weights_are_the_same_and_the_guides_untouched(last: int, tmp_path: Path) -> None:
    classifier = pooled(1)
    before = held(classifier)
    options: dict[str, Any] = {"sizes": GROWING, "ema": 0.9, "inner": Gradual()}

    def networks() -> Networks:
        return any_size(guides=[Guide(classifier)])

    whole = trained(train(SMALL, toy_images(), networks(), **options))
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, toy_images(), networks(), run=Run(tmp_path), augment=Stopping(last), checkpoint_every=0, **options)
    assert same(trained(train(SMALL, toy_images(), networks(), run=Run(tmp_path), **options)), whole)
    assert untouched(classifier, before)


@pytest.mark.parametrize("threat", [L2(0.5), Wasserstein(0.05)], ids=str)
def test_another_norm_is_one_sentence(threat: Any) -> None:
    name = re.escape(str(threat))
    words = rf"^The radius of {name} means something else on smaller images: leave --sizes away, or use Linf:RADIUS\.$"
    with pytest.raises(InputError, match=words):
        train(replace(SMALL, threat=threat), toy_images(), any_size(), sizes=GROWING)
    TrainingConfig(sizes=FULL).check(replace(SMALL, threat=threat))
    TrainingConfig(sizes=GROWING).check(Natural())


def test_perturbations_that_are_kept_are_one_sentence() -> None:
    words = (
        r"^What is kept as 'inner/perturbations' has every pixel of the full size, .+ 3 × 3 pixels: .+warm-started\.$"
    )
    with pytest.raises(InputError, match=words):
        train(SMALL, toy_images(), any_size(), sizes=GROWING, inner=WarmStarted())
    train(SMALL, toy_images(), any_size(), sizes=Sizes((1.0, 1.0)), inner=WarmStarted())
    train(MMA(Linf(0.1), steps=1, epochs=1, batch_size=20), toy_images(), any_size(), sizes=GROWING)  # keeps radii


class Asserts(nn.Module):
    """Refuses every size but one as others' code does."""

    def __init__(self, network: nn.Module, answer: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.answer = network, answer

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 6:
            return self.network(x)
        if self.answer is None:
            raise AssertionError
        return self.answer(self.network(x))


NAN = torch.full((), math.nan)
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "flattening guide": ({"guides": [Guide(pooled()), toy_cast().guides[0]]}, r"guide 1 \(mat1 and mat2 .+\)"),
    "our own fixed head": (
        {"guides": [Guide(build("mlp", channels=1, classes=4, size=6).eval(), "mlp")]},
        r"mlp \(The images have shape .+\)",
    ),
    "an assertion": ({"guides": [Guide(Asserts(pooled()), "theirs")]}, r"theirs \(AssertionError\)"),
    "no number": ({"guides": [Guide(Asserts(pooled(), lambda z: z * NAN), "g")]}, r"g \(it answers with NaN or .+\)"),
    "more logits": (
        {"guides": [Guide(Asserts(pooled(), lambda z: z.repeat(1, 2)), "g")]},
        r"g \(it answers with shape \(2, 8\) and not \(2, 4\)\)",
    ),
    "preprocessor": (
        {"preprocessor": nn.Sequential(preprocessor(), nn.Upsample((6, 6)))},
        r"the preprocessor \(it answers with shape \(2, 1, 6, 6\) and not \(2, 1, 3, 3\)\)",
    ),
    "classifier": ({"classifier": toy_cast().classifier}, r"the classifier \(.+\)"),
    "discriminator": ({"discriminator": toy_cast().discriminator}, r"the discriminator \(.+\)"),
}


@pytest.mark.parametrize(("others", "words"), MISFITS.values(), ids=MISFITS)
def test_a_network_for_one_size_alone_is_one_sentence_before_training(others: dict[str, Any], words: str) -> None:
    start = rf"^Images of 3 × 3 pixels, with which training would begin, do not fit {words}: leave --sizes away"
    spy, networks = Spy([], []), any_size(**others)
    with pytest.raises(InputError, match=start):
        train(spy, toy_images(), networks, sizes=GROWING)
    assert not spy.seen
    train(spy, toy_images(), networks)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_trains_on_growing_images(name: str) -> None:
    recipe: Recipe = RECIPES[name]()
    small = {"epochs": 2, "batch_size": 20, "steps": 2}
    recipe = replace(recipe, **{key: value for key, value in small.items() if hasattr(recipe, key)})
    layers = toy_cast().guides[0].classifier.feature_layers
    nets: list[Any] = [pooled(seed) for seed in (1, 2, 4)]
    for network in nets:
        network.feature_layers = layers
    guides = [Guide(network) for network in nets[: 1 if name == "nrp" else 2]]
    networks = any_size(guides=guides, classifier=nets[2])
    before = trained(networks)
    train(recipe, toy_images(), networks, sizes=GROWING, craft=prepared_bf16, precision="bf16")
    assert not same(trained(networks), before)
