from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.command_line import done
from helpers.toy_networks import classifier, toy_images

from forefend.attacks.autoattack import AutoAttack
from forefend.evaluation import parallel, trial
from forefend.evaluation.cost_estimate import Cost
from forefend.evaluation.evaluate import prepare
from forefend.evaluation.suites import general
from forefend.evaluation.suites.fast import fast
from forefend.runtime import threads
from forefend.runtime.threads import (
    available_cores,
    choose_threads,
    processes_in_memory,
    suitable_threads,
    torch_threads,
    use_threads,
)
from forefend.threat_models.lp import Linf


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
        (4, 64, 32.0, 2),  # half of the machine is busy, so half of the allowed cores are
        (4, 64, 2.0, 4),
        (0.5, 8, 0.0, 1),
        (1.6, 8, 0.0, 2),
    ],
)
def test_suitable_threads_subtracts_busy_cores(cores_allowed: float, cores: int, load: float, expected: int) -> None:
    assert suitable_threads(cores_allowed, cores, load) == expected


@pytest.mark.parametrize(("quota", "expected"), [("150000 100000", 1.5), ("900000 100000", 6.0), ("max 100000", 6.0)])
def test_available_cores_is_minimum_of_affinity_and_quota(
    quota: str, expected: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert available_cores() == expected


def test_available_cores_without_limits_is_all_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cores() == 5


def machine(monkeypatch: pytest.MonkeyPatch, load: float) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 4.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))


@pytest.mark.parametrize(("load", "expected"), [(0.0, 4), (2.0, 2), (9.0, 1)])
def test_choose_threads_sets_torch(load: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, load)
    assert choose_threads() == expected == torch.get_num_threads()


@pytest.mark.parametrize(("begun", "expected"), [(3, 3), (None, 2)])
def test_use_threads_sets_and_restores_threads(begun: int | None, expected: int) -> None:
    torch.set_num_threads(2)
    with use_threads(begun):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 2


def test_threads_of_environment_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, 0.0)
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert choose_threads() == 2
    with use_threads(3):
        assert torch.get_num_threads() == 2


def test_processes_in_memory_divides_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    pages = {"SC_AVPHYS_PAGES": 2 * largest // 4096 + 1, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", lambda name: pages[name])
    assert processes_in_memory() == 3  # this one, and two in the free memory
    pages["SC_AVPHYS_PAGES"] = 0
    assert processes_in_memory() == 1


def test_processes_in_memory_of_unknown_system_is_two(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert processes_in_memory() == 2


def test_torch_threads_restores_threads() -> None:
    torch.set_num_threads(2)
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("suite", "seconds", "requested", "count"),
    [
        (general.quick(Linf(0.1)), 1000.0, None, 2),  # three threads, but memory for two
        (general.quick(Linf(0.1)), 10.0, None, 1),  # not worth the start
        (general.quick(Linf(0.1)), 10.0, 3, 3),
        (general.quick(Linf(0.1)), 1000.0, 9, 4),  # there are four batches
        (fast([Linf(0.1)], 4), 1000.0, None, 2),
    ],
)
def test_processes_for_long_work_is_more_than_one(
    suite: trial.Suite,
    seconds: float,
    requested: int | None,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.set_num_threads(3)
    timed: list[int] = []

    def cost_of(*arguments: object, **more: object) -> Cost:
        timed.append(torch.get_num_threads())
        return Cost(1, 0, seconds)

    monkeypatch.setattr(parallel, "cost_of", cost_of)
    monkeypatch.setattr(parallel, "available_cores", lambda: 4.0)
    monkeypatch.setattr(parallel, "processes_in_memory", lambda: 2)
    suite = [replace(t, attack=replace(t.attack, classes=4)) if isinstance(t.attack, AutoAttack) else t for t in suite]
    evaluation = prepare(classifier(), toy_images(20), suite, batch_size=5)
    assert parallel.processes_for(evaluation, requested) == count
    assert (f"use {count} of" in capsys.readouterr().out) == ((requested or 1) > count)
    assert timed == ([3, 1] if count > 1 else [3])  # the cost of processes with one thread each
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert parallel.processes_for(evaluation, requested) == 1


LINES = {
    "evaluate": "--threat Linf:0.1 --out out",
    "certify": "--n 200 --n0 10 --out out",
    "corruptions": "--corruptions fog --severities 1 --out out",
}


@pytest.mark.parametrize("verb", LINES)
def test_long_commands_choose_threads(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []
    monkeypatch.setattr(threads, "choose_threads", lambda: calls.append(verb))
    monkeypatch.chdir(tmp_path)
    done(f"{verb} --classifiers mlp@random --data digits --images 2 --allow-weak-classifier --device cpu {LINES[verb]}")
    assert calls == [verb]
