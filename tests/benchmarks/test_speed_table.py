"""The tables of speed: generated from the committed files, with missed targets marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import pages, speed_table
from benchmarks.speed import table
from benchmarks.speed.results import Figure
from forefend.runtime import files

ROOT = Path(__file__).parents[2]


def figure(**more: Any) -> Figure:
    fields: dict[str, Any] = {
        **{"benchmark": "attack", "case": "PGD-20", "implementation": "ours", "against": "other", "unit": "seconds"},
        **{"ratio": 2.0, "low": 1.9, "high": 2.1, "rounds": 5},
    }
    return Figure(**fields | more)


def found(*figures: Figure) -> dict[str, Any]:
    return {
        "figures": [figure.to_json() for figure in figures],
        "settings": {"questions": list(dict.fromkeys(figure.benchmark for figure in figures)), "rounds": 5},
        "machine": {"processor": "Test", "cores": 2},
        "subjects": {"ours": {"torch": "2"}},
        "load": {"attack": [1.0, 2.0, 3.0], "at the end": [4.0, 0.0, 0.0]},
        "measured": [{"subject": "a 3x3 convolution of 64 channels", "gflops_per_second": 300.0}],
        "about": {"versions": {"torch": "2"}, "time": "2026-11-20T10:00:00Z"},
        "absent": {"ART": "no environment"},
    }


def test_row_marks_a_missed_target_and_shows_pairs() -> None:
    parity = {"robust": 0.4, "robust_against": 0.41, "gradients": 20.0}
    assert table.row(figure(target=2.5, parity=parity)) == [
        *("PGD-20", "ours", "other", "2.00", "1.90–2.10", "2.5 MISSED", "40.0% / 41.0%", "20.0")
    ]
    assert table.row(figure(target=2.0, unit="bytes"))[3:6] == ["2.00 (bytes)", "1.90–2.10", "2"]
    assert table.row(figure())[5] == ""
    text = table.text([figure(), figure(benchmark="memory")])
    assert text.index("ATTACK") < text.index("MEMORY")


def test_blocks_contain_targets_and_all_figures() -> None:
    growth = {"slope": 0.002, "intercept": 0.001, "r2": 0.99, "times": 3}
    cost = {"tflops": 0.5, "gradients": 7.0, "clean": 0.9, "robust": 0.6}
    blocks = speed_table.blocks(
        found(
            figure(target=2.5),
            figure(against="slow"),
            figure(benchmark="growth", case="guides 1 / guides 3", parity=growth),
            figure(benchmark="recipes", case="rtfe / adversarial", parity=cost),
        )
    )
    targets, everything = blocks["speed targets"], blocks["speed all"]
    assert "2.5 MISSED" in targets
    assert "slow" not in targets
    assert "load average 1.0–4.0" in targets
    assert "300–300 GFLOP/s" in targets
    assert "| slow |" in everything
    assert "guides: 2 ms for each and 1 ms once, R² 0.9900" in everything
    assert "| rtfe | 7.0 | 0.500 | 90.0% | 60.0% |" in everything
    assert "Left out: ART (no environment)." in everything


def test_committed_tables_match_their_files() -> None:
    for document, path in speed_table.DOCUMENTS.items():
        assert pages.renew(ROOT / document, speed_table.blocks(files.read_json(ROOT / path)), check=True)


def test_machine_names_missing_bfloat16_and_the_gpu() -> None:
    given = found(figure(target=2.5))
    assert "Test, 2 cores" in speed_table.machine(given)
    assert "processor time" in speed_table.machine(given)
    given["machine"]["bfloat16"] = False
    assert "Test without bfloat16 arithmetic, 2 cores" in speed_table.machine(given)
    given["subjects"] = {"plain loop": {"torch": "2"}, "ours": {"torch": "2", "gpu": "Test GPU"}}
    assert speed_table.machine(given).startswith("Test GPU, Test without")
    assert "GPU time" in speed_table.machine(given)
