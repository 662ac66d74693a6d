"""Accuracy on corrupted images: counted by hand, resumed, and refused where it would mean nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forefend.checks import InputError
from forefend.data import ImageDataset, from_tensors
from forefend.evaluation import records
from forefend.evaluation.corruption_results import ALL, NOT_COMPARABLE, CorruptionResult, load, mean_interval
from forefend.evaluation.corruption_robustness import Condition, measure
from forefend.evaluation.evaluated_model import EvaluatedModel
from forefend.evaluation.results import CLEAN
from forefend.evaluation.statistics import wilson
from forefend.runtime.rng import KeyedRNG


class Threshold(nn.Module):
    """Class 1 where the image's mean exceeds a threshold."""

    def __init__(self, at: float = 0.5) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.tensor(at))
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        excess = x.mean((1, 2, 3)) - self.at
        return torch.stack([-excess, excess], 1)


def images() -> ImageDataset:
    """Ten gray images of brightness 0.05, 0.15, …; those above 0.5 are of class 1."""
    level = torch.arange(10) / 10 + 0.05
    x = level.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return from_tensors("levels", x.contiguous(), (level > 0.5).long(), classes=("dark", "bright"))


def lifted(by: float, x: Tensor, rng: KeyedRNG) -> Tensor:
    return (x + by).clamp(0, 1)


CONDITIONS = [
    Condition(CLEAN, ALL, images),
    Condition("lift", 1, images, partial(lifted, 0.1)),
    Condition("lift", 5, images, partial(lifted, 0.3)),
    Condition("drop", 1, images, partial(lifted, -0.2)),
]


def by_name(cells: list[CorruptionResult]) -> dict[tuple[str, int], CorruptionResult]:
    return {(c.corruption, c.severity): c for c in cells}


def test_measure_equals_hand_counts() -> None:
    found = by_name(measure([EvaluatedModel("net", Threshold())], CONDITIONS))
    shares = {key: cell.accuracy for key, cell in found.items()}
    expected = {("none", 0): 1, ("lift", 1): 0.9, ("lift", 5): 0.7, ("lift", 0): 0.8}
    expected |= {("drop", 1): 0.8, ("drop", 0): 0.8, ("mean", 0): 0.8}
    assert shares == pytest.approx(expected)
    assert list(found) == list(expected)
    assert {key for key, cell in found.items() if not cell.made} == {("none", 0)}
    assert all(cell.n == 10 and cell.seed == 0 for cell in found.values())
    assert (found["lift", 5].low, found["lift", 5].high) == wilson(7, 10)


def test_mean_interval_counts_images() -> None:
    scores = [1.0] * 7 + [0.5] + [0.0] * 2  # lift: seven right twice, one once, two never
    mean, low, high = mean_interval(scores)
    spread = 1.959964 * (sum((s - 0.75) ** 2 for s in scores) / 9 / 10) ** 0.5
    assert (mean, low, high) == pytest.approx((0.75, 0.75 - spread, min(1, 0.75 + spread)))
    assert mean_interval([1.0, 1.0, 0.0]) == (pytest.approx(2 / 3), *wilson(2, 3))
    assert mean_interval([0.4]) == (0.4, 0, 1)


def test_measure_mean_weights_conditions_equally() -> None:
    """Three conditions count alike: the mean over all is over conditions."""
    found = by_name(measure([EvaluatedModel("net", Threshold())], CONDITIONS[:3]))
    assert found["mean", 0].accuracy == pytest.approx(0.8)


def test_measure_resumes_from_records(tmp_path: Path) -> None:
    network = Threshold()
    model = EvaluatedModel("net", network)
    whole = measure([model], CONDITIONS, folder=tmp_path, batch_size=4)
    assert load(tmp_path) == whole
    path = tmp_path / "records.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert [json.loads(line)["trial"] for line in lines] == [
        trial for trial in ("none", "lift 1, made", "lift 5, made", "drop 1, made") for _ in range(3)
    ]
    judged: list[int] = []

    def counted(x: Tensor, rng: KeyedRNG) -> Tensor:
        judged.extend(rng.index.tolist())
        return lifted(-0.2, x, rng)

    path.write_text("".join(lines[:-2]) + lines[-2][:30])
    again = [*CONDITIONS[:3], replace(CONDITIONS[3], corrupt=counted)]
    assert measure([model], again, folder=tmp_path, batch_size=4) == whole
    assert judged == [4, 5, 6, 7, 8, 9]
    assert len(records.read(path)) == 12
    judged.clear()
    measure([model], again, folder=tmp_path)
    assert not judged
    before = (tmp_path / "corruptions.json").read_bytes()
    for other in ({"seed": 1}, {"conditions": again[:2]}, {"models": [EvaluatedModel("net", Threshold(0.4))]}):
        with pytest.raises(InputError, match=r"holds the corruptions\.json of another evaluation"):
            measure(**({"models": [model], "conditions": again} | other), folder=tmp_path)
    assert (tmp_path / "corruptions.json").read_bytes() == before
    assert not judged
    (tmp_path / "corruptions.json").unlink()
    measure([model], again, folder=tmp_path, seed=1)
    assert judged == list(range(10))


def test_measure_does_not_reuse_other_pixels_or_networks(tmp_path: Path) -> None:
    measure([EvaluatedModel("net", Threshold())], CONDITIONS[:2], folder=tmp_path)
    before = len(records.read(tmp_path / "records.jsonl"))
    (tmp_path / "corruptions.json").unlink()
    measure([EvaluatedModel("net", Threshold(0.4))], CONDITIONS[:2], folder=tmp_path)
    assert len(records.read(tmp_path / "records.jsonl")) == 2 * before

    def darker() -> ImageDataset:
        x, y, _ = images().batch(torch.arange(10))
        return from_tensors("levels", x * 0.9, y, classes=("dark", "bright"))

    (tmp_path / "corruptions.json").unlink()
    found = measure([EvaluatedModel("net", Threshold())], [Condition(CLEAN, ALL, darker)], folder=tmp_path)
    assert found[0].accuracy == 0.9
    assert len(records.read(tmp_path / "records.jsonl")) == 2 * before + 1


def test_measure_corrupts_once_and_leaves_models_unchanged() -> None:
    network = Threshold().train()
    calls = []

    def corrupt(x: Tensor, rng: KeyedRNG) -> Tensor:
        calls.append(len(x))
        assert rng.seed == 3
        return x

    models = [EvaluatedModel("net", network), EvaluatedModel("net", Threshold(0.3), defended=True)]
    measure(models, [Condition("fog", 1, images, corrupt)], seed=3)
    assert calls == [10]
    assert network.training
    assert network.at.requires_grad
    assert network.asked == 0  # a frozen twin was


def test_measure_refuses_unusable_input() -> None:
    net = EvaluatedModel("net", Threshold())
    with pytest.raises(InputError, match="Two models are called 'net'"):
        measure([net, net], CONDITIONS)
    fewer = Condition("fog", 2, lambda: images().subset(torch.arange(3)))
    with pytest.raises(InputError, match="fog 2 is of other images than none"):
        measure([net], [CONDITIONS[0], fewer])
    twice = Condition("fog", 2, lambda: images().subset(torch.tensor([1, 1])))
    with pytest.raises(InputError, match="the same image twice"):
        measure([net], [twice])
    with pytest.raises(InputError, match="one logit for each class"):
        measure([EvaluatedModel("net", nn.Flatten())], CONDITIONS)


def test_load_refuses_another_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no"):
        load(tmp_path)
    (tmp_path / "corruptions.json").write_text('{"results": [{}]}')
    with pytest.raises(InputError, match="no list of results"):
        load(tmp_path)


def test_made_images_are_labeled_in_all_outputs(tmp_path: Path) -> None:
    cells = measure([EvaluatedModel("net", Threshold())], CONDITIONS, folder=tmp_path)
    assert json.loads((tmp_path / "corruptions.json").read_text())["images"] == NOT_COMPARABLE
    for text in (str(cells), cells.to_markdown()):
        assert text.count(NOT_COMPARABLE) == 2
    published = [replace(condition, corrupt=None) for condition in CONDITIONS]
    cells = measure([EvaluatedModel("net", Threshold())], published, folder=tmp_path / "p")
    assert "comparable" not in (tmp_path / "p" / "corruptions.json").read_text()
    assert "comparable" not in str(cells)


def test_tables_have_severities_and_gain() -> None:
    models = [EvaluatedModel("net", Threshold(0.4)), EvaluatedModel("net", Threshold(), defended=True, seen=True)]
    alone, defended = measure(models, CONDITIONS).tables()
    assert alone[0].startswith("net (unseen), undefended, n=10") or alone[0].startswith("net (guide), undefended, n=10")
    assert alone[1] == ["corruption", "1", "5", "mean"]
    assert defended[1] == ["corruption", "1", "5", "mean", "gain"]
    assert [row[0] for row in defended[2]] == ["clean", "lift", "drop", "all, mean"]
    lift, drop = defended[2][1], defended[2][2]
    low, high = wilson(9, 10)
    assert lift[1] == f"90.0 [{100 * low:.1f}–{100 * high:.1f}]"
    assert drop[2] == ""  # that severity was not measured
    assert (lift[4], drop[4]) == ("+10.0", "-10.0")
