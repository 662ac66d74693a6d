"""A network whose answers drift by state in a closure is noticed in the batch in which they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_networks import classifier, toy_images
from torch import Tensor, nn

import forefend as ff
from forefend.evaluation import records
from forefend.evaluation.certification import certificate


class Drifting(nn.Module):
    """A classifier whose logits move by `step` of their size at each call after the first `after`."""

    def __init__(self, after: int, step: float) -> None:
        super().__init__()
        self.inner = classifier()
        calls: list[None] = []  # copies of the network share it

        def scale() -> float:
            calls.append(None)
            return 1 + step * max(0, len(calls) - after)

        self.scale, self.count = scale, lambda: len(calls)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.scale()


def measured(network: nn.Module, folder: Path, **options: Any) -> None:
    ff.evaluate(network, toy_images(), [], folder=folder, batch_size=10, allow_weak=True, **options)


@pytest.mark.parametrize("step", [1e-4, 1e-2])
def test_evaluate_of_a_network_that_drifts_records_no_later_batch(step: float, tmp_path: Path) -> None:
    counted = Drifting(10**9, step)
    measured(counted, tmp_path / "all")
    before = counted.count() - 8  # four batches of images, and a look after each
    with pytest.raises(ff.InputError, match="classifier gives other logits for equal images than when its evaluation"):
        measured(Drifting(before + 3, step), tmp_path / "some")
    (line,) = records.read(tmp_path / "some" / "records.jsonl")
    assert len(line.index) in (10, 20)
    assert sum(len(each.index) for each in records.read(tmp_path / "all" / "records.jsonl")) == 40


def test_corruptions_and_certify_of_a_network_that_drifts_are_refused(tmp_path: Path) -> None:
    images = toy_images()
    with pytest.raises(ff.InputError, match="gives other logits for equal images than when"):
        ff.corruptions(Drifting(40, 1e-3), images, corruptions=["brightness"], folder=tmp_path / "c", batch_size=5)
    with pytest.raises(ff.InputError, match="gives other logits for equal images than when"):
        ff.certify(Drifting(60, 1e-3), images, n=100, n0=10, folder=tmp_path / "p", batch_size=10)
    assert len(certificate.read(tmp_path / "p" / "certificates.jsonl")) < len(images)


def test_evaluate_of_a_random_network_is_not_taken_for_a_drifting_one(tmp_path: Path) -> None:
    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = classifier()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x + 0.1 * torch.randn_like(x))

    measured(Random(), tmp_path)
    assert len(records.read(tmp_path / "records.jsonl")) >= 1
