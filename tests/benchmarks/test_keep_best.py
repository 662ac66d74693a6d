"""Training that keeps its best: the committed tables."""

from __future__ import annotations

from pathlib import Path

from benchmarks import pages
from benchmarks.keep_best import page
from benchmarks.keep_best.protocol import SEEDS, VARIANTS, command, folder_of
from forefend.evaluation.records import Record
from forefend.runtime import files

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


def test_protocol_of_each_variant_is_a_command() -> None:
    for name, variant in VARIANTS.items():
        assert variant.last_of in ("", *VARIANTS)
        assert command(name, 0)[:2] == ["train", "aaa"]
