from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset

from forefend.checks import InputError
from forefend.data import ImageDataset, as_image_dataset, from_tensors, load, sample, split
from forefend.data.dataset import InMemoryDataset, dataset_digest
from forefend.data.sampling import stratified_rows

labels = st.lists(st.integers(0, 4), min_size=2, max_size=60).map(lambda y: torch.tensor([*y, 4]))
seeds = st.integers(0, 2**32 - 1)


def tiny(y: Tensor, part: str = "train") -> ImageDataset:
    """Return images whose pixels are their row over 256."""
    x = (torch.arange(len(y)) / 256).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return from_tensors("tiny", x, y, classes=10, split=part)


def test_batch_returns_float_images_labels_and_index() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    images = InMemoryDataset("three", "test", pixels, torch.tensor([0, 1, 1]), torch.tensor([7, 8, 9]), ("a", "b"))
    x, y, index = images.batch(torch.tensor([2, 1]))
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == [1.0, torch.tensor(0.2).item()]
    assert (y.tolist(), index.tolist()) == ([1, 1], [9, 8])
    assert (len(images), images.shape) == (3, (1, 1, 1))
    assert "tensor" not in repr(images)


def test_batch_keeps_stored_uint8_unchanged() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 1, 2, 2)
    images = InMemoryDataset("three", "test", pixels, torch.zeros(3, dtype=torch.int64), torch.arange(3), ("a",))
    images.batch(torch.arange(3))
    kept = images.subset(torch.tensor([1]))
    assert images.pixels.dtype == kept.pixels.dtype == torch.uint8
    assert images.pixels.flatten().tolist() == list(range(12))


def test_batch_is_a_copy() -> None:
    images = tiny(torch.tensor([0, 1]))
    images.batch(torch.arange(2))[0].zero_()
    assert images.batch(torch.tensor([1]))[0].max() == 1 / 256


@settings(deadline=None)
@given(labels, st.integers(1, 70), seeds)
def test_sample_is_exact_stratified_sorted_repeatable(y: Tensor, count: int, seed: int) -> None:
    images = tiny(y)
    drawn = sample(images, count, seed)
    assert len(drawn) == min(count, len(y))
    assert drawn.index.tolist() == sorted(set(drawn.index.tolist()))
    assert torch.equal(drawn.labels, y[drawn.index])
    assert torch.equal(drawn.batch(torch.arange(len(drawn)))[0][:, 0, 0, 0], drawn.index / 256)
    share = y.bincount(minlength=5) * len(drawn) / len(y)
    assert (drawn.labels.bincount(minlength=5) - share).abs().max() < 1
    assert torch.equal(sample(images, count, seed).index, drawn.index)


def test_sample_uses_largest_remainders() -> None:
    # 6, 3 and 1 of ten: shares of four are 2.4, 1.2 and 0.4; the fourth image goes to a remainder of 0.4.
    y = torch.tensor([0] * 6 + [1] * 3 + [2])
    counts = {tuple(sample(tiny(y), 4, seed).labels.bincount(minlength=3).tolist()) for seed in range(20)}
    assert counts == {(3, 1, 0), (2, 1, 1)}


def test_sample_favors_no_class_by_number() -> None:
    y = torch.arange(10).repeat(3)
    drawn = torch.stack([sample(tiny(y), 1, seed).labels for seed in range(60)])
    assert len(drawn.unique()) > 6


def test_larger_sample_of_balanced_classes_contains_smaller() -> None:
    images = tiny(torch.arange(5).repeat(20))
    assert set(sample(images, 10, 3).index.tolist()) < set(sample(images, 45, 3).index.tolist())


def test_stratified_rows_are_frozen() -> None:
    assert stratified_rows(torch.arange(3).repeat(10), 6, seed=0).tolist() == [6, 8, 10, 11, 16, 24]


def test_sample_of_shuffled_subset_is_sorted_by_index() -> None:
    shuffled = tiny(torch.zeros(9, dtype=torch.int64)).subset(torch.tensor([8, 1, 5, 3, 0]))
    drawn = sample(shuffled, 4, seed=1)
    assert drawn.index.tolist() == sorted(drawn.index.tolist())
    assert set(drawn.index.tolist()) < {8, 1, 5, 3, 0}


def test_sample_with_other_seed_differs() -> None:
    images = tiny(torch.zeros(50, dtype=torch.int64))
    assert len({tuple(sample(images, 5, seed).index.tolist()) for seed in range(5)}) == 5


@settings(deadline=None)
@given(labels, st.floats(0.001, 0.999), seeds)
def test_split_is_a_stratified_partition(y: Tensor, share: float, seed: int) -> None:
    rest, held = split(tiny(y), share, seed)
    assert sorted(rest.index.tolist() + held.index.tolist()) == list(range(len(y)))
    assert len(held) == min(max(round(share * len(y)), 1), len(y) - 1)
    exact = y.bincount(minlength=5) * len(held) / len(y)
    assert (held.labels.bincount(minlength=5) - exact).abs().max() < 1
    assert rest.index.tolist() == sorted(rest.index.tolist())


def test_split_of_test_images_raises() -> None:
    with pytest.raises(InputError, match="test split of 'tiny'"):
        split(tiny(torch.tensor([0, 1, 0, 1]), part="test"), 0.5, 0)


@pytest.mark.parametrize("share", [0, 1, -0.1, 10, float("nan")])
def test_split_with_share_out_of_range_raises(share: float) -> None:
    with pytest.raises(InputError, match="share is"):
        split(tiny(torch.tensor([0, 1])), share, 0)


def test_sample_and_split_of_impossible_size_raise() -> None:
    images = tiny(torch.tensor([0, 1]))
    with pytest.raises(InputError, match="sample has 0 images"):
        sample(images, 0, 0)
    with pytest.raises(InputError, match="seed is -1"):
        sample(images, 1, -1)
    with pytest.raises(InputError, match="one training image"):
        split(images.subset(torch.tensor([0])), 0.5, 0)
    with pytest.raises(InputError, match="holds no images"):
        images.subset(torch.tensor([], dtype=torch.int64))


GOOD = torch.rand(4, 3, 8, 8)
Y = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (GOOD * 2 - 1, Y, "they look normalized"),
        (GOOD.where(GOOD < 0.5, torch.nan), Y, "NaN"),
        (GOOD[0], Y, r"expected \(B, C, H, W\)"),
        ((GOOD * 255).int(), Y, "x.float\\(\\) / 255"),
        ((GOOD[:0] * 255).byte(), Y[:0], "no images"),
        (GOOD * 255, Y, "divide by 255"),
        (GOOD[:0], Y[:0], "no images"),
        (GOOD.tolist(), Y, "not list"),
        (GOOD.numpy() * 255, Y, "divide by 255"),
        (GOOD, Y[:3], "3 labels for 4 images"),
        (GOOD, Y.float(), "expected int64"),
        (GOOD, Y * torch.nan, "expected int64"),
        (GOOD, -Y, "-2 … 0"),
        (GOOD, Y.tolist(), "not list"),
        (GOOD, Y[:, None], "expected int64"),
    ],
)
def test_from_tensors_of_other_input_raises(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_tensors("mine", x, y)


def test_from_tensors_with_label_beyond_classes_raises() -> None:
    with pytest.raises(InputError, match="0 … 1 for 2 classes"):
        from_tensors("mine", GOOD, Y, classes=("cat", "dog"))
    with pytest.raises(InputError, match="'training', expected 'train'"):
        from_tensors("mine", GOOD, Y, split="training")


def test_from_tensors_keeps_values() -> None:
    images = from_tensors("mine", GOOD.double().requires_grad_(), Y.int(), split="train")
    x, y, index = images.batch(torch.arange(4))
    assert torch.equal(x, GOOD)
    assert (x.dtype, y.dtype, index.dtype, x.requires_grad) == (torch.float32, torch.int64, torch.int64, False)
    assert (images.classes, images.name, images.split) == (("0", "1", "2"), "mine", "train")


class Arrays(Dataset[tuple[np.ndarray, int]]):
    """A dataset of 8-bit numpy images, without torch's types."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        if row >= 100:
            raise IndexError(row)
        return np.full((1, 2, 2), row, np.uint8), row % 3


PAIRS = TensorDataset(GOOD, Y)


def read_all(images: ImageDataset) -> tuple[Tensor, list[int], list[int]]:
    x, y, index = images.batch(torch.arange(len(images)))
    return x, y.tolist(), index.tolist()


def test_as_image_dataset_of_image_dataset_returns_it() -> None:
    images = tiny(Y)
    assert as_image_dataset(images) is images


@pytest.mark.parametrize(
    "given",
    [
        (GOOD, Y),
        [GOOD.double(), Y.int()],
        (GOOD.numpy(), Y.numpy()),
        (np.ascontiguousarray(GOOD.numpy()[::-1])[::-1], Y.numpy().astype(">i4")),
        (np.frombuffer(GOOD.numpy().tobytes(), np.float32).reshape(GOOD.shape), Y.numpy().astype(np.uint8)),
        PAIRS,
        Subset(PAIRS, [0, 1, 2, 3]),
        DataLoader(PAIRS),
        DataLoader(PAIRS, batch_size=3, shuffle=True, drop_last=True),
        DataLoader(Subset(PAIRS, range(4)), batch_size=2, sampler=[0, 1, 2, 3]),
    ],
)
def test_as_image_dataset_of_each_form_keeps_images_in_order(given: Any) -> None:
    images = as_image_dataset(given, name="mine")
    x, y, index = read_all(images)
    assert torch.equal(x, GOOD)
    assert (x.dtype, y, index) == (torch.float32, Y.tolist(), [0, 1, 2, 3])
    assert (images.name, images.split, images.classes) == ("mine", "test", ("0", "1", "2"))


@pytest.mark.parametrize("given", [Arrays(), DataLoader(Arrays(), batch_size=7, shuffle=True)])
def test_as_image_dataset_of_uint8_keeps_uint8(given: Any) -> None:
    images = as_image_dataset(given)
    assert isinstance(images, InMemoryDataset)
    assert images.pixels.dtype == torch.uint8
    x, y, _ = read_all(images)
    torch.testing.assert_close(x[:, 0, 0, 0], torch.arange(100) / 255)
    assert y == [row % 3 for row in range(100)]
    assert as_image_dataset((images.pixels.numpy(), images.labels), classes=10).classes == tuple("0123456789")


def test_as_image_dataset_of_sampled_loader_reads_the_sample() -> None:
    images = as_image_dataset(DataLoader(Arrays(), batch_size=2, sampler=SubsetRandomSampler([5, 9, 70])))
    assert sorted((read_all(images)[0][:, 0, 0, 0] * 255).round().tolist()) == [5, 9, 70]
    assert images.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GOOD, "Tensor was given"),
        ((GOOD, Y, Y), "tuple was given"),
        ({"x": GOOD}, "dict was given"),
        ((GOOD.numpy().astype(object), Y), "array of object"),
        ((GOOD, Y.tolist()), "not list"),
        (TensorDataset(GOOD), "expected pairs"),
        (TensorDataset(GOOD * 4, Y), "divide by 255"),
        (TensorDataset(GOOD, Y / 2), "expected int64"),
        ([(torch.rand(1, 8, 8), 0)], "list was given"),
        (DataLoader([(torch.rand(1, n, n), 0) for n in (8, 9)], batch_size=2), "one size"),
        (DataLoader([(object(), 0)]), "pairs of an image"),
        (DataLoader(TensorDataset(GOOD[:0], Y[:0])), "at least one image"),
    ],
)
def test_as_image_dataset_of_other_things_raises(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_image_dataset(given)


def test_as_image_dataset_with_split_names_it() -> None:
    assert as_image_dataset((GOOD, Y), split="train").split == "train"
    with pytest.raises(InputError, match="'val'"):
        as_image_dataset((GOOD, Y), split="val")


def test_as_image_dataset_with_too_few_classes_raises() -> None:
    with pytest.raises(InputError, match="for 2 classes"):
        as_image_dataset((GOOD, Y), classes=2)


BITS = torch.tensor([0, 1], dtype=torch.uint8).repeat(48).view(6, 1, 4, 4)


@pytest.mark.parametrize("given", [BITS, BITS.numpy()])
def test_from_tensors_of_bytes_0_and_1_raises(given: Any) -> None:
    with pytest.raises(InputError, match="only 0 and 1, expected 0 … 255"):
        from_tensors("mine", given, torch.arange(6))
    with pytest.raises(InputError, match="only 0 and 1"):
        as_image_dataset(TensorDataset(torch.as_tensor(given), torch.arange(6)))
    assert from_tensors("mine", given * 255, torch.arange(6)).batch(torch.arange(6))[0].max() == 1
    assert from_tensors("mine", torch.as_tensor(given).float(), torch.arange(6)).batch(torch.arange(6))[0].max() == 1
    dark = from_tensors("mine", torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(2))
    assert dark.batch(torch.arange(2))[0].max() == 0


@pytest.mark.parametrize("y", [torch.arange(4) + 1, torch.tensor([1, 3, 3, 1]), torch.tensor([5, 7, 6, 5])])
def test_from_tensors_of_labels_without_0_raises(y: Tensor) -> None:
    with pytest.raises(InputError, match=f"range over {int(y.min())} … {int(y.max())} and none is 0"):
        from_tensors("mine", GOOD, y)
    with pytest.raises(InputError, match="none is 0"):
        as_image_dataset((GOOD, y))
    assert len(from_tensors("mine", GOOD, y, classes=8).classes) == 8
    assert from_tensors("mine", GOOD[:1], y[:1]).labels.tolist() == y[:1].tolist()


def test_from_tensors_of_too_few_labels_names_their_number() -> None:
    with pytest.raises(InputError, match=f"There are {len(GOOD) - 1} labels for {len(GOOD)} images"):
        from_tensors("mine", GOOD, torch.arange(1, len(GOOD)))


@pytest.mark.parametrize("classes", [None, 10**9])
def test_from_tensors_of_a_billion_classes_raises(classes: int | None) -> None:
    with pytest.raises(InputError, match=r"expected less than 1000000: number the classes from 0"):
        from_tensors("mine", GOOD, torch.tensor([0, 10**9 - 1, 2, 1]), classes=classes)


def test_as_image_dataset_checks_labels_of_any_dataset() -> None:
    images = tiny(torch.tensor([0, 1]))
    object.__setattr__(images, "classes", ("a",))
    with pytest.raises(InputError, match="0 … 1, expected 0 … 0"):
        as_image_dataset(images)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "a\x1b[31m", "a\nb"])
def test_names_that_cannot_be_written_raise(name: str) -> None:
    for names in ((name, ("a", "b", "c")), ("mine", ("a", name, "c"))):
        with pytest.raises(InputError, match="not text") as error:
            from_tensors(names[0], GOOD, Y, classes=names[1])
        str(error.value).encode()


def test_dataset_digest_changes_with_any_pixel_label_or_index() -> None:
    x = torch.randint(0, 255, (600, 1, 3, 3), dtype=torch.uint8)
    images = InMemoryDataset("many", "train", x, torch.zeros(600, dtype=torch.int64), torch.arange(600), ("a", "b"))
    digest = dataset_digest(images)
    assert dataset_digest(images.subset(torch.arange(600))) == digest
    for row in (0, 1, 299, 598, 599):
        changed = x.clone()
        changed[row, 0, 1, 1] += 1
        label = images.labels.clone()
        label[row] = 1
        others = (
            replace(images, pixels=changed),
            replace(images, labels=label),
            replace(images, index=images.index + 1),
        )
        assert digest not in map(dataset_digest, others)


@pytest.mark.skipif("FOREFEND_DATA" not in os.environ, reason="FOREFEND_DATA does not name the folder of real files")
def test_dataset_digest_of_mnist_takes_about_a_second() -> None:
    images, started = load("mnist", "train"), time.perf_counter()
    dataset_digest(images)
    assert time.perf_counter() - started < 3  # 0.3 s on an idle core
