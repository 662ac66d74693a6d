"""Settings and fixtures of all tests: one thread, one seed, common images and networks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.browser import chromium as chromium
from helpers.browser import open_page as open_page
from helpers.browser import watched as watched
from hypothesis import settings
from torch import Tensor, nn

# Derandomized, so that failures are reproducible; no deadline, since machines may be busy.
settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=40)
settings.load_profile("house")
torch.set_num_threads(1)

# Modules without tests of their own, which --doctest-modules would import.
collect_ignore = ["helpers", "data/corruptions/make_oracle.py"]


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed torch before every test."""
    torch.manual_seed(0)
    return 0


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every processor report bfloat16 arithmetic, so that tests do not depend on it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of the published data sets and weights."""
    folder = os.environ.get("FOREFEND_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FOREFEND_DATA does not name a folder with the real data")
    return Path(folder)


@pytest.fixture
def x() -> Tensor:
    """Return six color images of 8 × 8 pixels."""
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y() -> Tensor:
    """Return their labels, of four classes."""
    return torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def net() -> nn.Module:
    """Return a network of four classes whose output depends on its mode: BatchNorm and dropout."""
    network = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(5 * 8 * 8, 4)),
    )
    for _ in range(3):
        network(torch.rand(4, 3, 8, 8))
    return network


@pytest.fixture(scope="session")
def python() -> Callable[..., str]:
    """Return a function that runs a program in a new interpreter and returns its output."""

    def run(program: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
