"""The tables of speed are the committed file's own, and say what was missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed import table
from benchmarks.speed.results import Figure
from forefend.checks import InputError
from forefend.runtime import files

ROOT = Path(__file__).parents[2]

from benchmarks import speed_table

PAGE = "A\n<!-- speed promised -->\nold\n<!-- end -->\nB\n<!-- speed all -->\n<!-- end -->\n"


def figure(**more: Any) -> Figure:
    told: dict[str, Any] = {
        **{"question": "attack", "case": "PGD-20", "subject": "ours", "against": "peer", "unit": "seconds"},
        **{"ratio": 2.0, "low": 1.9, "high": 2.1, "rounds": 5},
    }
    return Figure(**told | more)


def found(*figures: Figure) -> dict[str, Any]:
    return {
        "figures": [figure.plain() for figure in figures],
        "settings": {"questions": list(dict.fromkeys(figure.question for figure in figures)), "rounds": 5},
        "machine": {"processor": "Test", "cores": 2},
        "subjects": {"ours": {"torch": "2"}},
        "load": {"attack": [1.0, 2.0, 3.0], "at the end": [4.0, 0.0, 0.0]},
        "measured": [{"subject": "a 3x3 convolution of 64 channels", "gflops_per_second": 300.0}],
        "about": {"versions": {"torch": "2"}, "time": "2026-11-20T10:00:00Z"},
        "absent": {"ART": "no environment"},
    }


def test_a_missed_bar_is_marked_and_a_pair_is_shown() -> None:
    parity = {"robust": 0.4, "robust_against": 0.41, "gradients": 20.0}
    assert table.row(figure(bar=2.5, parity=parity)) == [
        *("PGD-20", "ours", "peer", "2.00", "1.90–2.10", "2.5 MISSED", "40.0% / 41.0%", "20.0")
    ]
    assert table.row(figure(bar=2.0, unit="bytes"))[3:6] == ["2.00 (bytes)", "1.90–2.10", "2"]
    assert table.row(figure())[5] == ""
    text = table.text([figure(), figure(question="memory")])
    assert text.index("ATTACK") < text.index("MEMORY")


def test_a_page_is_renewed_from_the_file_alone() -> None:
    growth = {"slope": 0.002, "intercept": 0.001, "r2": 0.99, "times": 3}
    cost = {"tflops": 0.5, "gradients": 7.0, "clean": 0.9, "robust": 0.6}
    told = found(
        figure(bar=2.5),
        figure(against="other"),
        figure(question="growth", case="guides 1 / guides 3", parity=growth),
        figure(question="recipes", case="rtfe / adversarial", parity=cost),
    )
    page = speed_table.renewed(PAGE, told)
    promised, everything = page.split("B\n")
    assert "old" not in page
    assert "2.5 MISSED" in promised
    assert "other" not in promised
    assert "load average 1.0–4.0" in promised
    assert "300–300 GFLOP/s" in promised
    assert "guides: 2 ms for each and 1 ms once, R² 0.9900" in everything
    assert "| rtfe | 7.0 | 0.500 | 90.0% | 60.0% |" in everything
    assert "Left out: ART (no environment)." in everything
    assert speed_table.renewed(page, told) == page


def test_a_document_without_a_place_is_refused() -> None:
    with pytest.raises(InputError, match="no place for a table"):
        speed_table.renewed("nothing", found(figure()))


def test_the_committed_tables_are_the_committed_files_own() -> None:
    for document, told in speed_table.DOCUMENTS.items():
        page = (ROOT / document).read_text(encoding="utf-8")
        assert speed_table.renewed(page, files.read_json(ROOT / told)) == page


def test_a_processor_without_bfloat16_is_called_so() -> None:
    told = found(figure(bar=2.5))
    assert "Test, 2 cores" in speed_table.machine(told)
    told["machine"]["bfloat16"] = False
    assert "Test without bfloat16 arithmetic, 2 cores" in speed_table.machine(told)
    assert "by the process's own time" in speed_table.machine(told)
    told["subjects"] = {"plain loop": {"torch": "2"}, "ours": {"torch": "2", "gpu": "Test GPU"}}
    assert speed_table.machine(told).startswith("Test GPU, Test without")
    assert "on the GPU's clock" in speed_table.machine(told)
