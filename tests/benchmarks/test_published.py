"""Published robust classifiers: the table matches the records, and our intervals contain the published accuracies."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import pages, published
from forefend.evaluation import records, results
from forefend.evaluation.results import CLEAN

RESULTS = Path(__file__).parents[2] / "results" / "published"
EACH = pytest.mark.parametrize("name", published.PUBLISHED)


def test_blocks_match_the_committed_page() -> None:
    assert pages.renew(RESULTS / "README.md", published.blocks(RESULTS), check=True)


@EACH
def test_inside_published_accuracy_is_in_our_interval(name: str) -> None:
    assert published.inside(RESULTS, name)


@EACH
def test_results_match_a_recount_of_the_records(name: str) -> None:
    found = records.read(RESULTS / name / "records.jsonl")
    attacked = Counter((record.trial, index) for record in found for index in record.index)
    assert set(attacked.values()) == {1}
    misclassified = {
        trial: {
            i for r in found if r.trial == trial for i, wrong in zip(r.index, r.misclassified, strict=True) if wrong
        }
        for trial in {record.trial for record in found}
    }
    for result in results.load(RESULTS / name):
        prefix = {"AutoAttack": "AutoAttack", "Square": "Square", "transfer from the classifier": "PGD", CLEAN: CLEAN}
        own = [t for t in misclassified if result.attack == "worst" or t.startswith(prefix[result.attack])]
        broken = set().union(misclassified[CLEAN], *(misclassified[trial] for trial in own))
        assert result.n == 1000
        assert result.accuracy == pytest.approx(1 - len(broken) / 1000)


def test_inside_accuracy_outside_the_interval_is_false(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(RESULTS, tmp_path / "published")
    name = next(iter(published.PUBLISHED))
    wrong = published.Published(99.0, 97.0, 98.0, "someone")
    monkeypatch.setitem(published.PUBLISHED, name, wrong)
    assert not published.inside(tmp_path / "published", name)
    assert "| NO |" in published.blocks(tmp_path / "published")["published"]
