"""Pictures of failures are those that the evaluation itself met: allowed, misleading, and the same again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import evidence_runs
from helpers.toy_networks import trained_classifier

from forefend.checks import InputError
from forefend.evaluation.evaluate import evaluate
from forefend.evaluation.evaluated_model import with_and_without
from forefend.evaluation.failure_pictures import PICTURES, load
from forefend.evaluation.records import read
from forefend.models.defended import Defended


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evidence_runs.make(tmp_path_factory.mktemp("pictures") / "run")


def test_pictures_mislead_the_defended_model_inside_the_threat_model(run: Path) -> None:
    found = load(run)
    assert (found.model, found.attack, found.threat) == ("cnn defended", "PGD-3", "Linf:0.2")
    assert len(found.index) == 3
    assert all(before != after for before, after in zip(found.answered_clean, found.answered, strict=True))
    assert list(found.labels) == list(found.answered_clean)
    clean, attacked, processed = (
        torch.from_numpy(part) / 255 for part in (found.clean, found.attacked, found.processed)
    )
    assert float((attacked - clean).abs().max()) <= 0.2 + 1 / 255
    defense = evidence_runs.defense()
    with torch.no_grad():
        assert torch.allclose(defense(attacked).clamp(0, 1), processed, atol=2 / 255)
        answers = Defended(defense, trained_classifier())(attacked).argmax(1)
    assert [evidence_runs.NAMES[number] for number in answers.tolist()] == list(found.answered)


def test_pictures_are_of_images_that_the_records_call_misled(run: Path) -> None:
    found = load(run)
    verdicts = [
        dict(zip(line.index, line.misclassified, strict=True))
        for line in read(run / "records.jsonl")
        if line.moved and "PGD-3(Linf:0.2" in line.trial
    ]
    misled = {index for own in verdicts for index, wrong in own.items() if wrong}
    assert set(found.index) == set(sorted(misled)[:3])


def test_resumed_evaluation_keeps_the_same_pictures_and_records(run: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(run, tmp_path / "again"))
    (again / PICTURES).unlink()
    models = with_and_without(evidence_runs.defense(), "cnn", trained_classifier())
    evaluate(models, evidence_runs.images(), evidence_runs.suite(), folder=again, pictures=3)
    assert (again / PICTURES).read_bytes() == (run / PICTURES).read_bytes()
    assert (again / "records.jsonl").read_bytes() == (run / "records.jsonl").read_bytes()


def test_no_picture_is_written_where_nothing_failed_or_none_was_asked_for(tmp_path: Path) -> None:
    models = with_and_without(evidence_runs.defense(), "cnn", trained_classifier())
    robust = evidence_runs.suite()[:1]  # at a radius that misleads no image
    evaluate(models, evidence_runs.images(), robust, folder=tmp_path / "robust", pictures=3)
    evaluate(models, evidence_runs.images(), evidence_runs.suite(), folder=tmp_path / "none")
    assert not list(tmp_path.rglob(PICTURES))


def test_damaged_pictures_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evaluate with --pictures"):
        load(tmp_path)
    (tmp_path / PICTURES).write_bytes((run / PICTURES).read_bytes()[:-7])
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path)


def test_pixels_are_rounded_to_eight_bits(run: Path) -> None:
    found = load(run)
    index = evidence_runs.images().index.tolist()
    x, _, _ = evidence_runs.images().batch(torch.tensor([index.index(number) for number in found.index]))
    assert found.clean.dtype == np.uint8
    assert np.array_equal(found.clean, (x * 255).round().byte().numpy())
