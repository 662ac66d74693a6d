"""Training that keeps its best: the committed tables, and the attack towards several classes."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks import pages
from benchmarks.keep_best import page
from benchmarks.keep_best.measure import Targeted, suite
from benchmarks.keep_best.protocol import SEEDS, VARIANTS, command, folder_of
from forefend.evaluation.records import Record
from forefend.runtime import files
from forefend.runtime.rng import KeyedRNG
from forefend.threat_models.lp import Linf

RESULTS = Path(__file__).parents[2] / "results" / "keep-best"


def test_blocks_match_the_committed_page() -> None:
    assert pages.renew(RESULTS / "README.md", page.blocks(RESULTS), check=True)


def write_run(root: Path, name: str, seed: int, broken: int, gradients: int) -> None:
    folder = folder_of(root, name, seed)
    files.write_json(folder / "cost.json", {"image_gradients": gradients, "weight_gradients": 0, "cpu_seconds": 1.0})
    files.write_json(folder / "records" / "summary.json", [])
    index = list(range(100))
    files.append(folder / "records" / "records.jsonl", Record("k", "none", 0, index, [i == 0 for i in index]))
    files.append(folder / "records" / "records.jsonl", Record("k", "PGD", 0, index, [i < broken for i in index]))


def test_tables_show_what_was_not_run(tmp_path: Path) -> None:
    write_run(tmp_path, "ema", 0, broken=40, gradients=4000)
    write_run(tmp_path, "published", 0, broken=50, gradients=4000)
    runs = page.blocks(tmp_path)["runs"].splitlines()[2:]
    assert len(runs) == len(VARIANTS) * len(SEEDS)
    assert sum("not run" in row for row in runs) == len(runs) - 2
    assert "| ema | + EMA | 0 | 4k | 1 | last | 99.0" in runs[len(SEEDS)]
    assert "60.0 [" in runs[len(SEEDS)]
    (row,) = page.difference(tmp_path, "ema")
    assert row[2].startswith("+10.0 [")
    assert row[4] == "1/1.00"
    assert list(page.difference(tmp_path, "best")) == []


def test_targeted_reaches_a_class_that_is_not_the_likeliest() -> None:
    weights = torch.tensor([[0.0], [0.0], [3.0], [0.0], [0.0]])  # only the third class overtakes the first
    bias = torch.tensor([1.0, 0.9, 0.0, -9.0, -9.0])

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1) - 0.5).sum(1, keepdim=True) @ weights.T + bias

    x, y, rng = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64), KeyedRNG(torch.arange(2))
    x_adv = Targeted(Linf(0.1), 10)(f, x, y, rng=rng)
    assert f(x_adv).argmax(1).tolist() == [2, 2]
    assert Linf(0.1).allows(x_adv, x).all()


def test_protocol_of_each_variant_is_a_command() -> None:
    for name, variant in VARIANTS.items():
        assert variant.last_of in ("", *VARIANTS)
        assert command(name, 0)[:2] == ["train", "aaa"]
    assert len(suite()[0].stages) == 3
