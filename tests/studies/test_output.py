from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from forefend.checks import InputError
from forefend.evaluation.records import Record
from forefend.runtime.files import json_line, read_json, write_versioned
from forefend.studies import output
from forefend.studies.measurements import Count
from forefend.studies.output import Found, load, markdown, renewed, to_csv
from forefend.studies.table import Outcome

MODEL, PGD = "digits/test:ab:cd", "PGD in Linf:0.1"


def count(right: int, model: str = MODEL) -> Count:
    return Count(model, [PGD], 0, 4, right, [])


def outcome(*rights: int, paper: float | str | None = 60.0, **more: object) -> Outcome:
    made = Outcome("row", "PGD", paper, False, "accuracy", "mean", "", [[count(r)] for r in rights])
    return replace(made, **more)  # type: ignore[arg-type]


def found(*outcomes: Outcome) -> Found:
    return Found("aaa", "table-9", "smoke", "Nine", "section 9", "accuracy in %", "", outcomes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    clean = Record(MODEL, "none", 0, [3, 5, 7, 9], [False, False, False, True])
    attacked = Record(MODEL, PGD, 0, [3, 5, 7], [False, True, False])
    (tmp_path / "records.jsonl").write_bytes(json_line(clean) + json_line(attacked))
    write_versioned(tmp_path / "table.json", asdict(found(outcome(2))))
    return tmp_path


def test_several_seeds_have_mean_deviation_and_difference() -> None:
    many = outcome(1, 2)
    assert (many.ours(), many.n(), many.gap()) == (37.5, 4, -22.5)
    assert many.spread() == pytest.approx(17.678, abs=1e-3)
    assert replace(many, over="max").ours() == 50.0
    assert "| row | **37.5 ± 17.7** (60, -22.5) |" in markdown(found(many))


def test_an_error_bar_is_the_deviation_of_seeds_or_the_interval_of_one() -> None:
    assert outcome(1, 2).error() == pytest.approx((17.678, 17.678), abs=1e-3)
    assert outcome(2).error() == pytest.approx((35.0, 35.0), abs=0.05)  # Wilson: 15.0 to 85.0 for 2 of 4
    assert outcome(4).error() == pytest.approx((49.0, 0.0), abs=0.05)  # 51.0 to 100 for 4 of 4
    assert replace(outcome(2), value="lowest accuracy").error() == outcome(2).error()
    assert replace(outcome(2), value="difference", counts=[[count(2), count(1)]]).error() == (0.0, 0.0)


def test_a_fooling_rate_is_a_share_of_the_images_that_were_right() -> None:
    fooled = replace(outcome(1), value="fooling rate", counts=[[count(1), count(4)]])
    assert fooled.ours() == 75.0


def test_quoted_failed_and_unfinished_cells_are_told_apart() -> None:
    text = markdown(
        found(
            outcome(paper=12.0, quoted=True, column="a"),
            outcome(failed="No images: get some.", column="b"),
            outcome(column="c"),
            outcome(3, paper=None, column="d"),
            outcome(3, paper="✓", column="e"),
        )
    )
    assert "| row | (12, quoted) | failed (60) | – (60) | **75.0** | **75.0** (✓) |" in text
    assert "- row / b: No images: get some." in text


def test_the_setting_is_told_once_or_where_it_differs() -> None:
    assert "Same setting? Yes." in markdown(found(outcome(2)))
    cells = [outcome(2, differs="small networks"), outcome(2, column="CW", differs="small networks")]
    assert "Same setting? No: small networks." in markdown(found(*cells))
    cells[1] = replace(cells[1], differs="another attack")
    assert "Same setting? (CW) No: another attack." in markdown(found(*cells))


def test_a_line_of_csv_has_every_column() -> None:
    heading, line = to_csv(found(outcome(1, 2, differs="small"))).splitlines()
    assert tuple(heading.split(",")) == output.COLUMNS
    assert line == "row,PGD,60.0,False,37.50,17.68,4,2,-22.50,no: small,"


def test_a_table_is_counted_again_from_its_records(folder: Path) -> None:
    assert load(folder).outcomes[0] == outcome(2)
    held = read_json(folder / "table.json")
    held["outcomes"][0]["counts"][0][0]["right"] = 3
    write_versioned(folder / "table.json", held)
    with pytest.raises(InputError, match="differs from its records"):
        load(folder)


def test_how_far_images_moved_is_the_mean_of_the_records(folder: Path) -> None:
    lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
    attacked = Record(
        MODEL, PGD, 0, [3, 5, 7], [False, True, False], moved=[[0.1, 0.2, 0.3], [0.2, 0.4, 0], [0.3, 0.3, 0]]
    )
    (folder / "records.jsonl").write_bytes(lines[0] + json_line(attacked))
    moved = replace(outcome(2), value="moved behind defense", counts=[[replace(count(2), moved=[0.2, 0.3])]])
    write_versioned(folder / "table.json", asdict(found(moved)))
    assert load(folder).outcomes[0].ours() == pytest.approx(255 * 0.3)
    wrong = replace(moved, counts=[[replace(count(2), moved=[0.2, 0.4])]])
    write_versioned(folder / "table.json", asdict(found(wrong)))
    with pytest.raises(InputError, match="differs from its records"):
        load(folder)


def test_a_table_without_a_record_is_refused(folder: Path) -> None:
    (folder / "records.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="differs from its records"):
        load(folder)


def test_a_block_of_a_page_is_the_table_of_its_folder(folder: Path) -> None:
    page = f"Before.\n<!-- study {folder.name} -->\nold\n<!-- end -->\nAfter.\n"
    made = renewed(page, folder.parent)
    assert made == f"Before.\n<!-- study {folder.name} -->\n{markdown(load(folder))}\n<!-- end -->\nAfter.\n"
    assert renewed(made, folder.parent) == made
