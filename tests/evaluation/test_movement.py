"""Fooling rates and mean |Δ| are those computed by hand, resumed too, and change no verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command_line import done
from helpers.toy_networks import classifier, preprocessor, toy_images
from torch import Tensor, nn

import forefend as ff
from forefend.attacks.pgd import from_x
from forefend.evaluation import records, results
from forefend.evaluation.attack_runner import stop_at_success
from forefend.evaluation.movement import Movement, mean_of
from forefend.evaluation.trial import Trial

IMAGES = toy_images()
PGD = ff.attacks.PGD("Linf:0.1", steps=3, start=from_x)
RESTARTED = Trial("stopped", ff.attacks.PGD("Linf:0.2", steps=3), ff.Linf(0.2), restarts=2, run=stop_at_success)


class Darker(nn.Module):
    """Takes 0.05 from each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return x - 0.05


def evaluated(network: nn.Module, *trials: Trial, folder: Path | None = None, **options: Any) -> ff.Results:
    suite = trials or [Trial("PGD", PGD, ff.Linf(0.1))]
    return ff.evaluate(network, IMAGES, suite, folder=folder, allow_weak=True, **options)


def test_mean_of_three_images() -> None:
    assert mean_of([[0.0, 1.0, 2.0], [1.0, 2.0, 6.0]]) == Movement(0.5, 1.5, 4.0, 2)
    assert mean_of([]) is None


def test_evaluate_measures_movement_and_fooling_rate_as_by_hand(tmp_path: Path) -> None:
    model = ff.Defended(preprocessor(2).eval(), classifier())
    x, y, index = IMAGES.batch(torch.arange(len(IMAGES)))
    found = evaluated(model, folder=tmp_path)
    right = model(x).argmax(1) == y
    assert 0 < right.sum() < len(y)
    x_adv = PGD(model, x[right], y[right], rng=ff.KeyedRNG(index[right]))
    with torch.no_grad():
        g, fooled = model.defense(x_adv), (model(x_adv).argmax(1) != y[right]).double().mean()
        pairs = [(x_adv, x[right]), (g, x[right]), (g, x_adv)]
        attack, output, change = [float((a - b).abs().mean()) for a, b in pairs]
        alone = float((model.defense(x) - x).abs().mean())
    clean, attacked = found
    assert found.fooling_rate(attacked) == pytest.approx(float(fooled))
    moved, unattacked = found.moved(attacked), found.moved(clean)
    assert moved is not None
    assert unattacked is not None
    assert [moved.attack, moved.output, moved.preprocessor] == pytest.approx([attack, output, change], rel=1e-3)
    assert moved.images == right.sum()
    assert [unattacked.attack, unattacked.output, unattacked.preprocessor] == pytest.approx([0, alone, alone], rel=1e-3)
    again = results.load(tmp_path)
    assert again.moved(again[1]) == moved
    assert again.fooling_rate(again[1]) == found.fooling_rate(attacked)


def test_movement_resumes_and_needs_a_defense(tmp_path: Path) -> None:
    model = ff.Defended(Darker(), classifier())
    whole = evaluated(model, RESTARTED, folder=tmp_path)
    assert evaluated(model, RESTARTED, folder=tmp_path).movement == whole.movement
    moved = whole.moved(whole[1])
    assert moved is not None
    assert moved.preprocessor == pytest.approx(0.05, rel=1e-3)
    alone = evaluated(classifier())
    assert alone.moved(alone[1]) is None
    assert alone.fooling_rate(alone[1]) is not None
    assert alone.fooling_rate(replace(alone[1], seed=9)) is None


def test_movement_of_a_random_preprocessor_changes_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 0.1 * torch.randn_like(x)

    model = ff.Defended(Noisy(), classifier())
    trial = Trial("PGD", PGD, ff.Linf(0.1), access=ff.suites.Access(eot_samples=2))
    evaluated(model, trial, folder=tmp_path / "with")
    monkeypatch.setattr("forefend.evaluation.moved_images.MovedImages.measure", lambda *_: None)
    evaluated(model, trial, folder=tmp_path / "without")
    both = [records.read(tmp_path / name / "records.jsonl") for name in ("with", "without")]
    assert all(record.moved for record in both[0])
    assert not any(record.moved for record in both[1])
    assert [replace(record, moved=[], model="") for record in both[0]] == [replace(r, model="") for r in both[1]]


def test_report_shows_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated(ff.Defended(Darker(), classifier()), folder=tmp_path / "e")
    out = done("report e --changes")
    assert "fooling rate" in out.splitlines()[-5]
    assert out.splitlines()[-2].split()[-1] == "12.75"  # 0.05 * 255
    path = tmp_path / "e" / "records.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    assert len(line["moved"]) == len(line["index"])


@pytest.mark.parametrize("moved", [[[1, 2]], [["a", 1, 2]], [1]])
def test_record_with_other_moved_is_refused(moved: Any) -> None:
    with pytest.raises(ff.InputError, match="its moved holds other values than three numbers"):
        records.Record("m", "t", 0, [1], [True], ["d"], moved=moved)
