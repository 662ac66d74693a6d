from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers import evidence_runs

from forefend.report.evidence.page import evidence
from forefend.report.page.blocks import Page


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one evaluation, and nothing else. Do not change it."""
    return evidence_runs.make(tmp_path_factory.mktemp("bare") / "bare")


@pytest.fixture(scope="session")
def full(bare: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with checks, transfer and latency. Do not change it."""
    folder = tmp_path_factory.mktemp("full") / "full"
    shutil.copytree(bare, folder)
    evidence_runs.add(folder)
    return folder


@pytest.fixture
def run(bare: Path, tmp_path: Path) -> Path:
    """A copy of the run with one evaluation, to be changed."""
    return Path(shutil.copytree(bare, tmp_path / "run"))


@pytest.fixture(scope="session")
def bare_page(bare: Path) -> Page:
    """The page of the run with one evaluation."""
    return evidence(bare)


@pytest.fixture(scope="session")
def full_page(full: Path) -> Page:
    """The page of the run with checks, transfer and latency."""
    return evidence(full)
