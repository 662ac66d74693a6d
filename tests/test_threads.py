from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from forefend import threads
from forefend.threads import allowed, choose_threads, fitting_threads


@pytest.fixture(autouse=True)
def _threads_given_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


@pytest.mark.parametrize(
    ("cores_allowed", "cores", "load", "expected"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.4, 2),
        (2, 2, 0.9, 1),
        (2, 2, 7.0, 1),
        (16, 16, 3.2, 13),
        (4, 64, 32.0, 2),  # half of the machine is busy, and so is half of what is ours
        (4, 64, 2.0, 4),
        (0.5, 8, 0.0, 1),
        (1.6, 8, 0.0, 2),
    ],
)
def test_others_are_left_their_cores(cores_allowed: float, cores: int, load: float, expected: int) -> None:
    assert fitting_threads(cores_allowed, cores, load) == expected


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 1.5), ("900000 100000", 6.0), ("max 100000", 6.0)])
def test_affinity_and_quota_both_bind(
    quota: str, expected: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert allowed() == expected


def test_where_neither_is_known_all_cores_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert allowed() == 5


def machine(monkeypatch: pytest.MonkeyPatch, load: float) -> None:
    monkeypatch.setattr(threads, "allowed", lambda: 4.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))


@pytest.mark.parametrize(("load", "given", "expected"), [(0.0, None, 4), (2.0, None, 2), (9.0, None, 1), (9.0, 3, 3)])
def test_torch_is_told(load: float, given: int | None, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, load)
    assert choose_threads(given) == expected == torch.get_num_threads()


def test_what_the_environment_says_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 0.0)
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads() == choose_threads(3) == 2
