from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forefend.runtime.rng import KeyedRNG

IMAGE = (2, 3, 4)
# Frozen: other numbers would change random starts, and records could not be resumed.
GOLDEN = [[7579119.0, 14554091.0], [16536057.0, 10122391.0]]
GOLDEN_NUMBER = 6131291900387007468


def like(index: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(len(index), *IMAGE, dtype=dtype)


def drawn(index: list[int], **key: object) -> Tensor:
    numbers = torch.tensor(index)
    return KeyedRNG(numbers, **key).uniform(like(numbers))  # type: ignore[arg-type]


def reference(index: int, place: int, key: str) -> float:
    """Return one uniform number by SplitMix64 in Python integers."""

    def mix(bits: int) -> int:
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        return bits ^ bits >> 31

    weyl = 0x9E3779B97F4A7C15
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    image = mix((index * weyl + start) % 2**64)
    return (mix((image + place * weyl) % 2**64) >> 40) / 2**24


@given(
    index=st.integers(-(2**63), 2**63 - 1),
    seed=st.integers(0, 2**40),
    restart=st.integers(0, 9),
    purpose=st.text("ab|"),
)
def test_uniform_matches_splitmix64(index: int, seed: int, restart: int, purpose: str) -> None:
    got = drawn([index], seed=seed, purpose=purpose, restart=restart, step=7).flatten()
    assert got[0] == reference(index, 1, f"{seed}|{purpose}|{restart}|7")
    assert got[23] == reference(index, 24, f"{seed}|{purpose}|{restart}|7")


def test_uniform_and_integer_are_frozen() -> None:
    got = drawn([0, 49_999], seed=3, purpose="PGD-10(Linf:8/255)", restart=1)
    assert (got.flatten(1)[:, [0, 23]] * 2**24).tolist() == GOLDEN
    assert KeyedRNG(torch.tensor([0]), seed=3, purpose="guide", step=5).integer() == GOLDEN_NUMBER


def test_keyed_rng_is_equal_in_other_process(python: Callable[..., str]) -> None:
    program = (
        "import torch; from forefend.runtime.rng import KeyedRNG\n"
        "d = KeyedRNG(torch.tensor([5, 9]), seed=2, purpose='start', restart=3, step=4)\n"
        "print(d.uniform(torch.zeros(2, 1, 2, 2)).flatten().tolist(), d.integer())"
    )
    rng = KeyedRNG(torch.tensor([5, 9]), seed=2, purpose="start", restart=3, step=4)
    here = f"{rng.uniform(torch.zeros(2, 1, 2, 2)).flatten().tolist()} {rng.integer()}"
    assert python(program) == here


@given(index=st.lists(st.integers(0, 60_000), min_size=1, max_size=8, unique=True), data=st.data())
def test_numbers_of_image_do_not_depend_on_batch(index: list[int], data: st.DataObject) -> None:
    whole = KeyedRNG(torch.tensor(index), seed=1)
    order = data.draw(st.permutations(range(len(index))))
    part = torch.tensor(order[: data.draw(st.integers(1, len(order)))])
    for kind in (KeyedRNG.uniform, KeyedRNG.normal):
        numbers = kind(whole, like(whole.index))
        assert torch.equal(kind(whole.select(part), like(part)), numbers[part])
    mask = torch.zeros(len(index), dtype=torch.bool)
    mask[part] = True
    assert torch.equal(whole.select(mask).index, whole.index[mask])


def test_each_part_of_key_changes_numbers() -> None:
    base = KeyedRNG(torch.tensor([7]), seed=0, purpose="a", restart=0, step=0)
    others = [
        base,
        KeyedRNG(torch.tensor([8]), seed=0, purpose="a"),
        KeyedRNG(torch.tensor([7]), seed=1, purpose="a"),
        base.fold_in(purpose="b"),
        base.fold_in(purpose=""),
        base.fold_in(restart=1),
        base.fold_in(step=1),
        base.fold_in(purpose="a|0", restart=0),
    ]
    for one, other in combinations(others, 2):
        assert (one.uniform(like(one.index)) == other.uniform(like(other.index))).float().mean() < 0.1
    assert len({rng.integer() for rng in others}) == len(others) - 1  # the image is not part of its key
    assert base.fold_in() == base.fold_in(purpose="a", restart=0, step=0)


def test_fold_in_keeps_other_parts_of_key() -> None:
    rng = KeyedRNG(torch.tensor([7]), seed=5, purpose="a", restart=2, step=3)
    assert rng.fold_in(step=4) == KeyedRNG(rng.index, 5, "a", 2, 4)
    assert rng.fold_in(restart=0, purpose="") == KeyedRNG(rng.index, 5, "", 0, 3)


def test_uniform_is_uniformly_distributed() -> None:
    numbers = KeyedRNG(torch.arange(200), seed=9).uniform(torch.zeros(200, 1, 20, 50, dtype=torch.float64))
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    n = numbers.numel()
    gap = (numbers.flatten().sort().values - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap < 1.95 / math.sqrt(n)  # Kolmogorov and Smirnov, one in a thousand


@pytest.mark.parametrize("neighbor", ["pixel", "image", "step", "seed"])
def test_neighboring_numbers_are_independent(neighbor: str) -> None:
    index, x = torch.arange(100), torch.zeros(100, 1000)
    one = KeyedRNG(index).uniform(x)
    other = {
        "pixel": one.roll(1, 1),
        "image": one.roll(1, 0),
        "step": KeyedRNG(index, step=1).uniform(x),
        "seed": KeyedRNG(index, seed=1).uniform(x),
    }[neighbor]
    pairs = (one * 10).long() * 10 + (other * 10).long()
    count = pairs.flatten().bincount(minlength=100).double()
    chi_square = ((count - 1000).square() / 1000).sum()
    assert chi_square < 149  # 99 degrees of freedom, one in a thousand


def test_normal_is_normally_distributed() -> None:
    numbers = KeyedRNG(torch.arange(200), seed=4).normal(torch.zeros(200, 1000)).double().flatten()
    assert numbers.isfinite().all()
    assert abs(float(numbers.mean())) < 4 / math.sqrt(2e5)
    assert abs(float(numbers.var()) - 1) < 4 * math.sqrt(2 / 2e5)
    for quantile, share in [(-1.959964, 0.025), (-0.674490, 0.25), (0.0, 0.5), (1.0, 0.841345), (2.326348, 0.99)]:
        assert abs(float((numbers < quantile).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / 2e5)


def test_normal_of_extreme_bits_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyedRNG, "_bits", lambda self, x: torch.tensor([0, 2**24 - 1]))
    low, high = KeyedRNG(torch.arange(2)).normal(torch.zeros(2, dtype=torch.float64)).tolist()
    assert low == pytest.approx(-high)
    assert 5 < high < 6


def test_extreme_indices_have_distinct_numbers() -> None:
    numbers = drawn([-(2**63), -1, 0, 1, 2**31, 2**32, 2**62, 2**63 - 1])
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert len({tuple(row) for row in numbers.flatten(1).tolist()}) == 8
    assert torch.equal(numbers[3:4], drawn([1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_have_shape_and_type_of_images(dtype: torch.dtype) -> None:
    index = torch.tensor([3, 1], dtype=torch.int32)
    x = like(index, dtype)
    for numbers in (KeyedRNG(index).uniform(x), KeyedRNG(index).normal(x)):
        assert (numbers.shape, numbers.dtype) == (x.shape, dtype)
    assert torch.equal(KeyedRNG(index).uniform(x).double(), drawn([3, 1]).double())


def test_normal_of_empty_batch_is_empty() -> None:
    assert KeyedRNG(torch.arange(0)).normal(torch.zeros(0, 3, 2, 2)).shape == (0, 3, 2, 2)


def test_keyed_rng_does_not_touch_global_generator() -> None:
    before = torch.get_rng_state()
    first = drawn([1])
    KeyedRNG(torch.arange(3)).normal(torch.zeros(3, 2))
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert torch.equal(first, drawn([1]))


def test_integer_does_not_depend_on_images() -> None:
    assert KeyedRNG(torch.arange(3), step=2).integer() == KeyedRNG(torch.tensor([8]), step=2).integer()
    numbers = torch.tensor(
        [KeyedRNG(torch.arange(1), step=step).integer() for step in range(2000)], dtype=torch.float64
    )
    assert ((numbers >= 0) & (numbers < 2**63)).all()
    assert abs(float(numbers.mean()) / 2**63 - 0.5) < 4 / math.sqrt(12 * 2000)
