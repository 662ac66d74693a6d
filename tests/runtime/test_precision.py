from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from helpers.command_line import done
from helpers.toy_networks import classifier, same, toy_cast, toy_images, train, trained
from torch import nn

from forefend.checks import InputError
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.suites import general
from forefend.evaluation.suites.fast import fast
from forefend.evaluation.trial import with_copies
from forefend.models.optimized_copy import optimized_copy
from forefend.recipes import RTFE
from forefend.runtime.precision import full_float32, report_fallback, supported_dtype
from forefend.threat_models.lp import Linf
from forefend.training.mixed_precision import mixed_precision

CPU = torch.device("cpu")
REASON = "this cpu has no bfloat16 arithmetic and would be slower"
SENTENCE = f"in fp32, for {REASON}."


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the processor report no bfloat16 arithmetic."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": False, "amx_bf16": False})


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "arm_bf16"])
def test_supported_dtype_on_cpu_with_bfloat16_is_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "l2_cache_size": 524288, name: True})
    assert supported_dtype("bf16", CPU) == (torch.bfloat16, "")


def test_supported_dtype_on_cpu_without_bfloat16_is_float32(without: None) -> None:
    assert supported_dtype("bf16", CPU) == (torch.float32, REASON)
    assert supported_dtype("fp32", CPU) == (torch.float32, "")


def test_supported_dtype_with_older_torch_is_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert supported_dtype("bf16", CPU) == (torch.bfloat16, "")


@pytest.mark.parametrize("able", [True, False])
def test_supported_dtype_on_gpu_excludes_emulation(able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def has(*, including_emulation: bool) -> bool:
        return able or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", has)
    dtype, told = supported_dtype("bf16", torch.device("cuda"))
    assert dtype is (torch.bfloat16 if able else torch.float32)
    assert bool(told) is not able


def settings() -> tuple[bool, str]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cudnn.conv.fp32_precision


class RecordsTF32(nn.Module):
    """Return four logits of an image, and record the TF32 setting of each call."""

    allowed: ClassVar[list[bool]] = []  # shared with copies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.allowed.append(torch.backends.cudnn.allow_tf32)
        return x.flatten(1)[:, :4]


def test_evaluation_uses_full_float32_and_restores_setting() -> None:
    before = settings()
    assert before[0]
    RecordsTF32.allowed.clear()
    optimized_copy(RecordsTF32(), torch.rand(2, 1, 6, 6))
    assert RecordsTF32.allowed
    assert not any(RecordsTF32.allowed)
    evaluate(RecordsTF32(), toy_images(), general.quick(Linf(0.1)), allow_weak=True)
    assert not any(RecordsTF32.allowed[-20:])
    assert settings() == before


@pytest.mark.parametrize("theirs", ["ieee", "tf32"])
def test_full_float32_restores_the_newer_setting(theirs: str) -> None:
    conv = torch.backends.cudnn.conv
    before = conv.fp32_precision
    try:
        conv.fp32_precision = theirs
        with full_float32():
            assert conv.fp32_precision == ("none" if theirs == before else "ieee")
        assert conv.fp32_precision == theirs
    finally:
        conv.fp32_precision = before


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="asks Linux of an x86 processor")
def test_supported_dtype_matches_flags_of_the_kernel(python: Callable[..., str]) -> None:
    program = (
        "import torch; from forefend.runtime.precision import supported_dtype; "
        "print(supported_dtype('bf16', torch.device('cpu'))[0])"
    )
    flags = Path("/proc/cpuinfo").read_text().split()
    assert python(program) == str(torch.bfloat16 if {"avx512_bf16", "amx_bf16"} & set(flags) else torch.float32)


def test_optimized_copy_without_bfloat16_is_same_function(without: None, net: nn.Module, x: torch.Tensor) -> None:
    prepared = optimized_copy(net, x, precision="bf16")
    assert prepared.dtype is torch.float32
    assert prepared.notes[-1] == f"It computes {SENTENCE}"
    with torch.no_grad():
        torch.testing.assert_close(prepared(x), net.eval()(x), rtol=1e-5, atol=1e-5)


def test_mixed_precision_without_bfloat16_is_plain(without: None) -> None:
    networks = toy_cast()
    with mixed_precision(networks, "bf16") as low:
        assert low is networks


def test_training_without_bfloat16_is_that_in_float32(without: None) -> None:
    recipe = RTFE(Linf(0.1), steps=1, epochs=1, batch_size=16)
    asked = train(recipe, toy_images(), toy_cast(), attack_copy="bf16", precision="bf16")
    plain = train(recipe, toy_images(), toy_cast(), attack_copy="bf16")
    assert same(trained(asked), trained(plain))


def test_supported_dtype_of_unknown_precision_raises(without: None) -> None:
    with pytest.raises(InputError, match=r"^There is no precision called 'fp16': did you mean 'bf16'\?$"):
        supported_dtype("fp16", CPU)


TRAIN = (
    "train rtfe --data digits --images 40 --guides mlp@random --allow-weak-classifier --epochs 1 --steps 1 "
    "--batch-size 20 --device cpu"
)


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        ("--attack-copy bf16", ["What attacks see computes"]),
        ("--precision bf16", ["The weights' step computes"]),
        ("--attack-copy bf16 --precision bf16", ["What attacks see computes", "The weights' step computes"]),
    ],
)
def test_train_command_reports_each_fallback_once(
    asked: str, who: list[str], without: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = [line for line in done(f"{TRAIN} --out run {asked}").splitlines() if SENTENCE in line]
    assert told == [f"{one} {SENTENCE}" for one in who]


def test_fit_reports_fallback(without: None, capsys: pytest.CaptureFixture[str]) -> None:
    train(RTFE(Linf(0.1), steps=1, epochs=1, batch_size=16), toy_images(), toy_cast(), precision="bf16")
    assert capsys.readouterr().out.count(f"The weights' step computes {SENTENCE}") == 1


def test_report_fallback_prints_in_first_process_only(
    without: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        report_fallback("It computes", "bf16", CPU)
        assert capsys.readouterr().out.count(SENTENCE) == (rank == "0")


def test_train_command_in_fp32_reports_no_fallback(
    without: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert SENTENCE not in done(f"{TRAIN} --out run --attack-copy fp32")


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_evaluate_command_reports_fallback(
    asked: str, without: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = "evaluate --classifiers mlp@random --data digits --images 8 --allow-weak-classifier --threat Linf:0.1"
    assert done(f"{line} --precision {asked} --device cpu").count(SENTENCE) == (asked == "bf16")
    (folder,) = Path("runs/evaluations").iterdir()
    assert "quick-fp32-" in folder.name
    assert "in bf16" not in (folder / "records.jsonl").read_text()


def test_fast_reports_fallback_and_records_precision(
    without: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = with_copies(fast([Linf(0.05)], 4), "bf16")
    judge = partial(evaluate, classifier(), toy_images(8), suite, allow_weak=True)
    judge(folder=tmp_path / "without")
    assert capsys.readouterr().out.count(f"The copies that propose compute {SENTENCE}") == 1
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    judge(folder=tmp_path / "with")
    assert SENTENCE not in capsys.readouterr().out
    for folder, said, other in (("without", "fp32", "bf16"), ("with", "bf16", "fp32")):
        text = (tmp_path / folder / "records.jsonl").read_text()
        assert f"(white_box in {said})" in text
        assert f"in {other}" not in text
