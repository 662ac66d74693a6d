from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from forefend.checks import (
    InputError,
    check_finite,
    check_images,
    check_labels,
    choose,
    import_extra,
    predictions,
    unknown_name,
)

GREY = torch.full((2, 3, 4, 4), 0.5)
LOGITS = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0]])


def changed(value: float) -> Tensor:
    x = GREY.clone()
    x[1, 2, 3, 0] = value
    return x


def message_of(check: Callable[..., None], *arguments: Any) -> str:
    with pytest.raises(InputError) as refusal:
        check(*arguments)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


@pytest.mark.parametrize("x", [GREY, GREY[:1, :1], GREY.double(), changed(0.0), changed(1.0), GREY.half()])
def test_check_images_in_range_passes(x: Tensor) -> None:
    check_images(x)
    check_images(x, channels=x.shape[1])


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ([[0.5]], ["torch tensor", "list"]),
        (GREY.numpy(), ["torch tensor", "ndarray"]),
        (GREY.byte(), ["uint8", "x.float() / 255"]),
        (GREY[0], ["(3, 4, 4)", "(B, C, H, W)", "x[None]"]),
        (GREY[:0], ["no images"]),
        (GREY.movedim(1, 3), ["4 channels, expected 3", "(2, 4, 4, 3)"]),
        (GREY[:, :2].movedim(1, 3), ["4 channels, expected 2"]),
        (changed(math.nan), ["NaN"]),
        (changed(math.inf), ["infinite"]),
        (changed(-math.inf), ["infinite"]),
        (changed(255), ["[0.5, 255]", "divide by 255"]),
        (changed(-1), ["[-1, 0.5]", "look normalized", "mean and std"]),
        (changed(1.001), ["[0.5, 1.001", "clamp"]),
        (changed(-0.1), ["[-0.1, 0.5]", "clamp"]),
    ],
)
def test_check_images_of_other_input_names_the_problem(x: Any, words: list[str]) -> None:
    message = message_of(check_images, x)
    for word in words:
        assert word in message


@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 3, 3, 3), (2, 13, 8, 8), (2, 2, 5, 7), (2, 4, 9, 6), (2, 8, 8, 8)])
def test_check_images_of_any_channels_passes(shape: tuple[int, ...]) -> None:
    check_images(torch.zeros(shape))


def test_check_images_with_other_channels_names_both() -> None:
    assert "3 channels, expected 1:" in message_of(check_images, GREY, 1)


def test_check_labels_in_range_passes() -> None:
    check_labels(torch.tensor([0, 2, 1]), 3, 3)
    check_labels(torch.tensor([0, 2, 1], dtype=torch.int32), 3)
    check_labels(torch.tensor([], dtype=torch.int64), 3, 0)


@pytest.mark.parametrize(
    ("y", "count", "words"),
    [
        (torch.tensor([0.0, 1.0]), None, ["float32", "(2,)", "int64"]),
        (torch.tensor([[0, 1]]), None, ["(1, 2)", "(B,)"]),
        (torch.tensor([0, 1]), 3, ["2 labels for 3 images"]),
        (torch.tensor([1, 3]), 2, ["1 … 3", "0 … 2", "3 classes"]),
        (torch.tensor([-1, 2]), None, ["-1 … 2", "0 … 2"]),
    ],
)
def test_check_labels_of_other_input_names_the_problem(y: Tensor, count: int | None, words: list[str]) -> None:
    message = message_of(check_labels, y, 3, count)
    for word in words:
        assert word in message


def test_choose_known_name_returns_entry() -> None:
    assert choose("rtfe", {"rtfe": 1, "natural": 2}, "recipe") == 1


def test_unknown_name_among_very_many_shows_the_first() -> None:
    said = str(unknown_name("", (f"net{number:04}" for number in range(1300)), "model"))
    assert said.endswith("net0008, net0009, … (1300 in all).")
    assert len(said) < 200


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rtef", "'rtfe'?"),
        ("RTFE", "'rtfe'?"),
        ("naturel", "'natural'?"),
        ("xyz", "adversarial, natural, rtfe"),
        ("", "adversarial, natural, rtfe"),
    ],
)
def test_choose_unknown_name_suggests_nearest(name: str, hint: str) -> None:
    known = {"rtfe": 1, "natural": 2, "adversarial": 3}
    with pytest.raises(InputError) as refusal:
        choose(name, known, "recipe")
    for word in ("recipe", repr(name), hint):
        assert word in str(refusal.value)
    assert str(unknown_name(name, iter(known), "recipe")) == str(refusal.value)


def test_predictions_finite_logits_are_argmax() -> None:
    assert predictions(LOGITS + torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])).tolist() == [0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_predictions_bad_logit_names_the_image(value: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(4, 3, dtype=dtype)
    logits[2, 1] = value
    assert "image 2 of the batch are NaN or infinite" in message_of(predictions, logits)
    assert "image 70 of the data" in message_of(predictions, logits, torch.tensor([50, 60, 70, 80]))


def test_check_finite_several_images_counts_them() -> None:
    gradient = GREY.clone()
    check_finite(gradient, "The gradients", "look")
    gradient[:, 0, 0, 0] = math.nan
    assert "image 0 of the batch and of 1 more of 2" in message_of(check_finite, gradient, "The gradients", "look")


def test_check_images_a_hair_outside_shows_the_digits() -> None:
    x = torch.tensor([0.0, 1.0000001]).view(1, 1, 1, 2)
    assert "1.00000012], expected [0, 1]; clamp them" in message_of(check_images, x)


def test_import_extra_tells_missing_from_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "heavy_package.py").write_text("raise ImportError('failed to map segment from shared object')")
    with pytest.raises(InputError, match=r"heavy_package, .* cannot be loaded \(failed to map .*free memory"):
        import_extra("heavy_package", "Reading", "data")
    with pytest.raises(InputError, match=r"Reading needs no_such_package: pip install 'forefend\[data\]'"):
        import_extra("no_such_package", "Reading", "data")
    assert import_extra("json.decoder", "Reading", "data").JSONDecoder
