"""Two processes evaluate each image once and give the results of one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import evaluation_process
from helpers.torchrun import in_two_processes
from hypothesis import given
from hypothesis import strategies as st

from forefend.evaluation import corruption_results, records, results
from forefend.evaluation.certification import certificate
from forefend.evaluation.result_store import part_of
from forefend.runtime import distributed, files
from forefend.runtime.distributed import ProcessGroup, process_group
from forefend.runtime.folders import locked
from forefend.training.loop import Loop


@given(rows=st.integers(0, 60), size=st.integers(1, 20), count=st.integers(1, 5))
def test_mine_deals_whole_batches_once(rows: int, size: int, count: int) -> None:
    every = torch.arange(rows)
    dealt = [ProcessGroup(rank, count).mine(every, size) for rank in range(count)]
    assert sorted(torch.cat(dealt).tolist()) == every.tolist()
    whole = {tuple(part.tolist()) for part in every.split(size)}
    assert {tuple(part.tolist()) for mine in dealt for part in mine.split(size) if len(part)} <= whole | {()}


def test_process_group_without_torchrun_is_one() -> None:
    assert process_group() == ProcessGroup(0, 1)
    assert ProcessGroup().all_of({3: True}) == {3: True}


def test_accelerator_on_uses_the_cpu_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(distributed, "Accelerator", lambda cpu: asked.append(cpu))
    for cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        for device in (None, "cpu", "cuda"):
            distributed.accelerator_on(device)
    assert asked == [True, True, True, False, True, False]


def test_what_is_learnt_of_images_is_exchanged_on_the_device_and_stays_where_it_was() -> None:
    exchanged: list[torch.device] = []

    def reduce(learnt: torch.Tensor, reduction: str) -> torch.Tensor:
        exchanged.append(learnt.device)
        return torch.tensor([1, 6], dtype=torch.int8)  # of both processes

    told = SimpleNamespace(device=torch.device("meta"), reduce=reduce)
    kept = {"kept": torch.ones(2)}
    loop: Any = SimpleNamespace(before={"kept": torch.ones(2)}, _image_tensors=lambda: kept, accelerator=told)
    Loop.merge(loop)
    assert exchanged == [torch.device("meta")]
    assert kept["kept"].tolist() == [2, 7]


def judged(folder: Path) -> Counter[tuple[str, int]]:
    found = records.read(folder / "records.jsonl")
    return Counter((record.trial, index) for record in found for index in record.index)


def test_two_processes_give_the_results_of_one(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    in_two_processes(evaluation_process.__file__, str(two), "30")
    in_two_processes(evaluation_process.__file__, str(two), "60")  # goes on from what is there
    evaluation_process.evaluated(one, 60)
    assert results.load(two) == results.load(one)
    assert judged(two) == judged(one)
    assert set(judged(two).values()) == {1}
    found = {"evaluation.json", "models.json", "records.jsonl", "summary.json", "certificates", "corruptions"}
    assert {path.name for path in two.iterdir()} == found
    certificates = certificate.read(two / "certificates" / "certificates.jsonl")
    assert sorted(certificates, key=lambda c: c.index) == evaluation_process.certified(None)
    assert corruption_results.load(two / "corruptions") == evaluation_process.corrupted(one / "corruptions")
    assert judged(two / "corruptions") == judged(one / "corruptions")
    assert set(judged(two / "corruptions").values()) == {1}


def test_evaluate_cuts_a_half_line_beside_a_partner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk or kill -9 can leave half a line of the first process, and whole lines of the second."""
    evaluation_process.evaluated(tmp_path, 60)
    whole, expected = records.read(tmp_path / "records.jsonl"), results.load(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    for number, record in enumerate(whole):
        files.append(part_of(tmp_path, "records", number % 2), record)
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    capsys.readouterr()
    assert evaluation_process.evaluated(tmp_path, 60) == expected
    assert "is not used" not in capsys.readouterr().out
    assert judged(tmp_path) == Counter((record.trial, index) for record in whole for index in record.index)


def test_evaluate_computes_damaged_lines_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected, path = evaluation_process.evaluated(tmp_path, 60), tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("true", "false") if "true" in lines[1] else lines[1].replace("false", "true")
    lines[3] = "junk\n"
    path.write_text("".join(lines))
    capsys.readouterr()
    assert evaluation_process.evaluated(tmp_path, 60) == expected
    said = capsys.readouterr().out
    assert f"Line 2 of {path} is moved to records.damaged.jsonl (it was edited" in said
    assert "and 1 more like it" in said
    damaged = (tmp_path / "records.damaged.jsonl").read_text().splitlines(keepends=True)
    assert damaged == [lines[1], lines[3]]
    assert evaluation_process.evaluated(tmp_path, 60) == expected
    assert "Line" not in capsys.readouterr().out  # named once
    assert set(judged(tmp_path).values()) == {1}


def test_evaluate_in_a_folder_that_another_holds_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path):
        done = subprocess.run(
            [sys.executable, evaluation_process.__file__, str(tmp_path), "30"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "InputError: Another process writes to" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_evaluate_reads_records_of_a_killed_process(tmp_path: Path) -> None:
    evaluation_process.evaluated(tmp_path, 60)
    whole, expected = records.read(tmp_path / "records.jsonl"), results.load(tmp_path)
    (tmp_path / "records.jsonl").unlink()
    for number, record in enumerate(whole):
        files.append(part_of(tmp_path, "records", number % 3), record)
    assert evaluation_process.evaluated(tmp_path, 60) == expected
    assert judged(tmp_path) == Counter((record.trial, index) for record in whole for index in record.index)
