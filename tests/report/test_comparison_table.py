"""Who wins is computed from the cells; the table shows what they say."""

from __future__ import annotations

import json

import pytest

from forefend.evaluation.comparison.results import Price, Row
from forefend.evaluation.results import Result, Stand, Verdict
from forefend.report.comparison_table import markdown, text, verdict

OURS, RIVAL = "this defense", "adversarial fine-tuning (lr 0.01)"


def row(name: str, standing: int, n: int = 1000, changed: bool = False) -> Row:
    stand = Stand(name, False, False, n, 0)

    def cell(lost: int) -> Result:
        return stand.cell(Verdict("worst" if lost else "none", "Linf", 0.1, frozenset(range(lost))))

    price = Price(2.5e9, 3e6, 1.25, 0.5, 10, 2.0)
    return Row(name, "white box", cell(0), cell(n - standing), price, changed)


@pytest.mark.parametrize(
    ("ours", "rival", "sentence"),
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
def test_the_sentence_goes_the_way_of_the_cells(ours: int, rival: int, sentence: str) -> None:
    rows = [row("undefended", 10), row(OURS, ours), row(RIVAL, rival)]
    assert verdict(rows, OURS) == sentence
    assert verdict(rows[::-1], OURS) == sentence


def test_a_defense_below_those_who_lead_is_said_to_be_below() -> None:
    said = verdict([row(OURS, 400), row(RIVAL, 612), row("jpeg (quality 75)", 600)], OURS)
    assert said.endswith("adversarial fine-tuning (61.2 %) and jpeg (60.0 %); this defense (40.0 %) lies below.")


def test_few_images_make_no_winner() -> None:
    assert "no clear winner" in verdict([row(OURS, 8, 20), row(RIVAL, 11, 20)], OURS)
    assert "wins" in verdict([row(OURS, 400), row(RIVAL, 550)], OURS)


def test_the_table_holds_every_figure() -> None:
    rows = [row(OURS, 530), row(RIVAL, 612, changed=True)]
    for table in (text(rows), markdown(rows)):
        first, second = (next(line for line in table.splitlines() if r.name in line) for r in rows)
        for word in ("53.0 [49.9–56.1] n=1000", "100.0 [99.6–100.0] n=1000", "2.5", "3.00", "1.25", "0.500"):
            assert word in first
        assert " no " in first
        assert " yes " in second
    assert markdown(rows).splitlines()[1].count("---") == 11
    plain = json.loads(json.dumps(rows[1].plain()))
    assert plain["worst"]["accuracy"] == 0.612
    assert plain["price"]["training_flops"] == 2.5e9
