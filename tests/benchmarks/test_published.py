"""Others' robust classifiers: the table is the records' own, and our intervals hold their figures."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from forefend.evaluation import records, results
from forefend.evaluation.results import CLEAN

ROOT = Path(__file__).parents[2]

from benchmarks import published

RESULTS = ROOT / "results" / "published"
EACH = pytest.mark.parametrize("name", published.PUBLISHED)


def test_the_table_is_the_records_own() -> None:
    page = (RESULTS / "README.md").read_text()
    assert published.renewed(page, RESULTS) == page


@EACH
def test_the_published_figure_lies_within_our_interval(name: str) -> None:
    assert published.holds(RESULTS, name)


@EACH
def test_the_cells_can_be_recounted_from_the_verdicts(name: str) -> None:
    found = records.read(RESULTS / name / "records.jsonl")
    judged = Counter((record.trial, index) for record in found for index in record.index)
    assert set(judged.values()) == {1}
    lost = {
        trial: {i for r in found if r.trial == trial for i, gone in zip(r.index, r.lost, strict=True) if gone}
        for trial in {record.trial for record in found}
    }
    for cell in results.load(RESULTS / name):
        begin = {"AutoAttack": "AutoAttack", "Square": "Square", "transfer from the classifier": "PGD", CLEAN: CLEAN}
        broken = [lost[trial] for trial in lost if cell.attack == "worst" or trial.startswith(begin[cell.attack])]
        assert cell.n == 1000
        assert cell.accuracy == pytest.approx(1 - len(set().union(lost[CLEAN], *broken)) / 1000)


def test_a_figure_outside_the_interval_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(RESULTS, tmp_path / "published")
    name = next(iter(published.PUBLISHED))
    wrong = published.Published(99.0, 97.0, 98.0, "someone")
    monkeypatch.setitem(published.PUBLISHED, name, wrong)
    assert not published.holds(tmp_path / "published", name)
    assert "| NO |" in published.renewed((RESULTS / "README.md").read_text(), tmp_path / "published")
