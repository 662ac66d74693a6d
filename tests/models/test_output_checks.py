from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.models.output_checks import check_classifier, check_clean_accuracy, check_logits

LOGITS = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0]])


def message_of(check: Callable[..., None], *arguments: Any) -> str:
    with pytest.raises(InputError) as refusal:
        check(*arguments)
    text = str(refusal.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize(
    "output", [LOGITS, LOGITS - 5, torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.1]]), LOGITS.log_softmax(1)]
)
def test_check_logits_of_logits_passes(output: Tensor) -> None:
    check_logits(output, 2, 3)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ((LOGITS, LOGITS), ["tuple", "(B, 3)", "forward"]),
        ({"logits": LOGITS}, ["dict"]),
        (LOGITS[:, :2], ["(2, 2)", "(2, 3)"]),
        (LOGITS.repeat(1, 2), ["(2, 6)", "(2, 3)", "classes=6"]),
        (LOGITS[0], ["(3,)", "(2, 3)"]),
        (LOGITS * math.nan, ["NaN", "damaged"]),
        (LOGITS / 0, ["infinite"]),
        (LOGITS.softmax(1), ["probabilities", "softmax"]),
    ],
)
def test_check_logits_of_other_output_names_the_problem(output: Any, words: list[str]) -> None:
    message = message_of(check_logits, output, 2, 3)
    for word in words:
        assert word in message


@pytest.mark.parametrize(("classes", "bound"), [(2, 0.75), (3, 2 / 3), (4, 0.5), (10, 0.2), (100, 0.02)])
def test_check_clean_accuracy_near_chance_raises(classes: int, bound: float) -> None:
    check_clean_accuracy(bound + 1e-9, classes, 500, "cnn")
    message = message_of(check_clean_accuracy, bound - 1e-9, classes, 500, "cnn")
    for word in ("cnn", "500", f"{1 / classes:.1%}", "normalization", "allow_weak=True"):
        assert word in message


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_check_classifier_of_other_precision_says_so(kind: torch.dtype) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).to(kind)
    message = message_of(check_classifier, network, torch.rand(2, 1, 2, 2), 2, "cnn")
    assert f"cnn has {str(kind).removeprefix('torch.')} weights" in message
    assert ".float()" in message
    assert "channels" in message_of(check_classifier, network.float(), torch.rand(2, 3, 2, 2), 2, "cnn")


def test_check_logits_of_log_probabilities_names_the_cause() -> None:
    averaged = torch.tensor([[1.0, 0.0], [0.5, 0.5]]).log()
    assert "logarithms of probabilities" in message_of(check_logits, averaged, 2, 2)
    assert "overflows" in message_of(check_logits, torch.tensor([[1.0, torch.nan]]), 1, 2)


def test_classifier_on_another_device_is_told_apart_from_a_wrong_size() -> None:
    offset = torch.zeros(10, device="meta")

    def classifier(x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] + offset

    with pytest.raises(InputError, match=r"net is not on cpu alone, where the images are"):
        check_classifier(classifier, torch.rand(2, 1, 8, 8), 10, "net")


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError, ValueError])
def test_classifier_that_refuses_a_size_in_its_own_way_is_told_in_a_sentence(kind: type[Exception]) -> None:
    def classifier(x: Tensor) -> Tensor:
        raise kind("Input height (8) doesn't match model (224).")

    with pytest.raises(InputError, match=r"do not fit net \(Input height .*read the images at its size, or resize"):
        check_classifier(classifier, torch.rand(2, 1, 8, 8), 10, "net")


@pytest.mark.parametrize(
    "kind", [TypeError, KeyError, AttributeError, IndexError, ZeroDivisionError, NotImplementedError]
)
def test_classifier_whose_forward_raises_is_told_in_a_sentence(kind: type[Exception]) -> None:
    def classifier(x: Tensor) -> Tensor:
        raise kind("head")

    with pytest.raises(
        InputError, match=rf"net fails on images of shape \(1, 8, 8\) \({kind.__name__}: '?head'?\)"
    ) as told:
        check_classifier(classifier, torch.rand(2, 1, 8, 8), 10, "net")
    assert isinstance(told.value.__cause__, kind)


@pytest.mark.parametrize(
    "error", [MemoryError(), KeyboardInterrupt(), InputError("so"), RuntimeError("CUDA out of memory."), SystemExit(3)]
)
def test_classifier_that_is_stopped_or_lacks_memory_raises_as_it_is(error: BaseException) -> None:
    def classifier(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as raised:
        check_classifier(classifier, torch.rand(2, 1, 8, 8), 10, "net")
    assert raised.value is error
