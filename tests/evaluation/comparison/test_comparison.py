"""The verdict of a comparison is computed from its rows; its tables show every figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forefend.evaluation.comparison.comparison import Comparison, Price, Row, verdict
from forefend.evaluation.results import WORST, Result
from forefend.evaluation.statistics import wilson

RESULTS = Path(__file__).parents[3] / "results" / "compare"
OURS, BASELINE = "this defense", "adversarial fine-tuning (lr 0.01)"


def row(name: str, robust: int, n: int = 1000, changed: bool = False) -> Row:
    def cell(broken: int) -> Result:
        low, high = wilson(n - broken, n)
        share = 1 - broken / n
        return Result(name, False, False, WORST if broken else "none", "Linf", 0.1, n, share, low, high, share, 0)

    price = Price(2.5e9, 3e6, 1.25, 0.5, 10, 2.0)
    return Row(name, "white box", cell(0), cell(n - robust), price, changed)


@pytest.mark.parametrize(
    ("ours", "baseline", "sentence"),
    [
        (530, 612, "Under attack adversarial fine-tuning wins: 61.2 % against 53.0 % of this defense."),
        (612, 530, "Under attack this defense wins: 61.2 % against 53.0 % of adversarial fine-tuning."),
        (
            600,
            612,
            "Under attack there is no clear winner, as the intervals overlap: adversarial fine-tuning (61.2 %) and "
            "this defense (60.0 %).",
        ),
    ],
)
def test_verdict_names_the_most_robust_model(ours: int, baseline: int, sentence: str) -> None:
    rows = [row("undefended", 10), row(OURS, ours), row(BASELINE, baseline)]
    assert verdict(rows, OURS) == sentence
    assert verdict(rows[::-1], OURS) == sentence


def test_verdict_mentions_a_defense_below_the_leaders() -> None:
    said = verdict([row(OURS, 400), row(BASELINE, 612), row("jpeg (quality 75)", 600)], OURS)
    assert said.endswith("adversarial fine-tuning (61.2 %) and jpeg (60.0 %); this defense (40.0 %) is below.")


def test_verdict_on_few_images_names_no_winner() -> None:
    assert "no clear winner" in verdict([row(OURS, 8, 20), row(BASELINE, 11, 20)], OURS)
    assert "wins" in verdict([row(OURS, 400), row(BASELINE, 550)], OURS)


def test_tables_and_json_hold_every_figure() -> None:
    rows = [row(OURS, 530), row(BASELINE, 612, changed=True)]
    comparison = Comparison(rows, "caption", {"suite": "quick"})
    for table in (str(comparison), comparison.to_markdown()):
        first, second = (next(line for line in table.splitlines() if r.name in line) for r in rows)
        for word in ("53.0 [49.9–56.1] n=1000", "100.0 [99.6–100.0] n=1000", "2.5", "3.00", "1.25", "0.500"):
            assert word in first
        assert " no " in first
        assert " yes " in second
    assert comparison.to_markdown().splitlines()[1].count("---") == 11
    content = json.loads(json.dumps(comparison.to_json()))
    assert (content["suite"], content["verdict"]) == ("quick", comparison.verdict)
    plain = content["rows"][1]
    assert plain["worst"]["accuracy"] == 0.612
    assert plain["price"]["training_flops"] == 2.5e9


@pytest.mark.parametrize("folder", sorted(RESULTS.glob("*/compare.json")), ids=lambda path: path.parent.name)
def test_committed_table_is_that_of_the_committed_rows(folder: Path) -> None:
    content = json.loads(folder.read_text(encoding="utf-8"))
    rows = [
        Row(**written | {"clean": Result(**written["clean"]), "worst": Result(**written["worst"]), "price": price})
        for written in content["rows"]
        for price in [Price(**written["price"])]
    ]
    table = (folder.parent / "compare.md").read_text(encoding="utf-8")
    assert table.startswith(Comparison(rows, "", {}).to_markdown().split("\n\n")[0] + "\n\n")
    assert table.endswith(f"\n\n{verdict(rows)}\n")
    assert verdict(rows) == content["verdict"]
